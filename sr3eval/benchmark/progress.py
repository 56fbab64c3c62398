"""How work tells how far it is."""

from collections.abc import Callable

# Is told (stage, done, total) after every step; parts of an image count where a method tells its steps. What it raises
# ends the work there.
Tell = Callable[[str, float, int], None]


def silent(stage: str, done: float, total: int) -> None:
    """Tell nobody."""


class Count:
    """Tells how many of a stage's images are done."""

    def __init__(self, stage: str, total: int, tell: Tell) -> None:
        self.stage, self.total, self.tell, self.done = stage, total, tell, 0

    def advance(self, images: int) -> None:
        """So many more are done."""
        self.done += images
        self.at(self.done)

    def at(self, done: float) -> None:
        """So many are done, parts of images counted."""
        self.tell(self.stage, done, self.total)
