"""The languages in which subjects are spoken to: English, and one gettext catalog each in locale/ (docs/study.md)."""

import io
from functools import cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

LOCALE = Path(__file__).parent / "locale"
SOURCE = "en"  # in which the texts stand in the program
AVAILABLE = (SOURCE, *sorted(path.stem for path in LOCALE.glob("*.po")))


def N_(text: str) -> str:  # noqa: N802 - gettext's name for it
    """Mark a text to be translated where it is shown."""
    return text


@cache
def catalog(language: str) -> NullTranslations:
    """The texts in one of the AVAILABLE languages."""
    if language == SOURCE:
        return NullTranslations()
    compiled = io.BytesIO()
    with (LOCALE / f"{language}.po").open("rb") as po:
        write_mo(compiled, read_po(po, locale=language))
    compiled.seek(0)
    return GNUTranslations(compiled)
