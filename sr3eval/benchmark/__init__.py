"""From one TOML to scored images, tables and a report."""
