"""The site of the documentation: `make docs` builds it from these pages, the command lines and the docstrings."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmark.py

import sr3eval

project = "sr3eval"
author = "The sr3eval maintainers"
version = release = sr3eval.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "sphinx_copybutton"]
html_theme = "furo"
html_show_copyright = False
copybutton_prompt_text = "$ "  # of consoles, commands are copied and not what they print
copybutton_line_continuation_character = "\\"
html_title = f"sr3eval {version}"
exclude_patterns = ["_build"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
default_role = "code"  # `names` in docstrings
autodoc_default_options = {"exclude-members": "__init__, __new__"}
napoleon_use_ivar = True
suppress_warnings = ["misc.highlighting_failure"]  # TOML fragments with an ellipsis


def write_columns(_app: object) -> None:
    """Tables of the columns of a study's exports, from the codebook that is written beside them."""
    from analysis import codebook

    parts = []
    for name, columns in codebook.TABLES.items():
        rows = [f"| `{column}` | {about['description']} | {_values(about)} |" for column, about in columns.items()]
        parts.append(
            "\n".join([f"### {name}.csv", "", "| column | meaning | unit or values |", "|---|---|---|", *rows])
        )
    (Path(__file__).parent / "reference" / "columns.md.inc").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _values(about: dict[str, object]) -> str:
    values = about.get("enum")
    return str(about.get("unit", "")) if not isinstance(values, list) else ", ".join(f"`{value}`" for value in values)


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_columns)  # type: ignore[attr-defined]
