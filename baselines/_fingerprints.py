"""What of a baseline's settings goes into its fingerprint."""

from typing import Any


def options_text(**options: Any) -> str:
    """Options that change outputs, for fingerprints."""
    return ", ".join(f"{name}={value}" for name, value in sorted(options.items()))
