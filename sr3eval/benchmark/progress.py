"""How work tells how far it is."""

from collections.abc import Callable

# Is told (stage, done, total) after every step; parts of an image count where a method tells its steps. What it raises
# ends the work there.
Tell = Callable[[str, float, int], None]


def silent(stage: str, done: float, total: int) -> None:
    """Tell nobody."""
