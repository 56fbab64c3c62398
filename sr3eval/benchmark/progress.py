"""How work tells how far it is."""

from collections.abc import Callable

from sr3eval.method import Progress

# Is told (stage, done, total) after every step; parts of an image count where a method tells its steps. What it raises
# ends the work there.
Tell = Callable[[str, float, int], None]


def silent(stage: str, done: float, total: int) -> None:
    """Tell nobody."""


def shares(tell: Tell, stage: str, done: int, images: int, total: int) -> Progress:
    """The progress of a batch of `images`, told as images done of `total`, when `done` were before it."""
    return lambda share: tell(stage, round(done + share * images, 2), total)
