"""What `sr3eval doctor` finds, a line each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sr3eval.console import missing_package
from sr3eval.errors import UserError


@dataclass(frozen=True)
class Finding:
    """One line. state: "missing" is needed and not here, "note" is worth knowing and stops nothing."""

    topic: str
    text: str
    state: Literal["ok", "note", "missing"] = "ok"

    def __str__(self) -> str:
        return f"{self.state:7}  {self.topic:16}  {self.text}"


def note(topic: str, text: str) -> Finding:
    return Finding(topic, text, "note")


def missing(topic: str, text: str) -> Finding:
    return Finding(topic, text, "missing")


def attempt(topic: str, check: Callable[[], str], remedy: str = "") -> Finding:
    """What a check says, or what it misses: its error, which names the remedy itself unless one is given."""
    try:
        return Finding(topic, check())
    except UserError as error:
        return missing(topic, f"{error}; {remedy}" if remedy else str(error))
    except ModuleNotFoundError as error:
        return missing(topic, missing_package(error) or f"{error.name} is not installed: pip install {error.name}")
