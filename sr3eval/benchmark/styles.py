"""How tables are written in Markdown and in LaTeX, down to a method's name."""

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace

LATEX_NAME = 20  # characters of a line of a method's name: half of a column is left to the numbers


@dataclass(frozen=True)
class Style:
    """How one output format writes a table's parts."""

    escape: Callable[[str], str]
    name: Callable[[str], str]  # a method's, escaped
    bold: Callable[[str], str]
    underline: Callable[[str], str]
    published: Callable[[str, str], str]  # a method's name and its source, as they are printed
    heading: Callable[[str], str]  # an escaped label
    interval: Callable[[str, str], str]
    signed: Callable[[str], str]  # a number with its sign
    up: str
    down: str
    similar: str  # mark of values that do not differ from the best one
    identical: str  # mark of means over images of which some equal HR
    plus_minus: str
    marks: bool = True  # whether there are intervals and the marks of tests


def as_it_is(text: str) -> str:
    return text


def _escaped_markdown(text: str) -> str:
    return text.replace("|", "\\|")


MARKDOWN = Style(
    escape=_escaped_markdown,
    name=_escaped_markdown,
    bold=lambda text: f"**{text}**",
    underline=as_it_is,
    published=lambda method, source: f"*{method}* ({source})",
    heading=as_it_is,
    interval=lambda low, high: f" [{low}, {high}]",
    signed=as_it_is,
    up="↑",
    down="↓",
    similar="†",
    identical="‡",
    plus_minus=" ± ",
)
_LATEX_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "⁻": r"$^{-}$",
    **{c: f"$^{{{i}}}$" for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}


def latex_text(text: str) -> str:
    return "".join(_LATEX_SPECIAL.get(c, c) for c in text)


class _Names(textwrap.TextWrapper):
    """Breaks methods' names at spaces and behind underscores and hyphens."""

    wordsep_re = re.compile(r"(\s+)|(?<=[_-])")


def name_lines(name: str) -> list[str]:
    """Lines that leave half of a column to the numbers."""
    return _Names(LATEX_NAME).wrap(name)


def _latex_name(name: str) -> str:
    lines = name_lines(name)
    stacked = r" \\ ".join(map(latex_text, lines))
    return stacked if len(lines) == 1 else rf"\begin{{tabular}}[t]{{@{{}}l@{{}}}}{stacked}\end{{tabular}}"


def _stacked(label: str) -> str:
    """A label in two lines, "FD, EfficientNet-Lite0" or "PSNR (y)", where it has a name and a specification."""
    parts = re.match(r"(.+?),? (\(.+|(?<=, ).+)", label)
    return rf"\shortstack[r]{{{parts[1]}\\{parts[2]}}}" if parts else label


LATEX = Style(
    escape=latex_text,
    name=_latex_name,
    bold=lambda text: rf"\textbf{{{text}}}",
    underline=lambda text: rf"\underline{{{text}}}",
    published=lambda method, _source: rf"\textit{{{method}}}",
    heading=_stacked,
    interval=lambda low, high: rf" {{\scriptsize [{low}, {high}]}}",
    signed=lambda number: f"${number}$",
    up=r"$\uparrow$",
    down=r"$\downarrow$",
    similar=r"$^\dagger$",
    identical=r"$^\ddagger$",
    plus_minus=r" $\pm$ ",
)
COMPACT = replace(LATEX, marks=False)
