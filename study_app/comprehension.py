"""Whether a subject has understood the instructions: the table `comprehension` of a study's TOML, and its check."""

from dataclasses import dataclass

from sr3eval.errors import UserError

MOST_ATTEMPTS = 10


@dataclass(frozen=True)
class Check:
    """A question about the instructions; `right` is one of its `options`."""

    text: str
    options: tuple[str, ...]
    right: str

    def __post_init__(self) -> None:
        if len(set(self.options)) < 2 or len(set(self.options)) < len(self.options):
            raise UserError(f'comprehension: "{self.text}" needs two or more different options')
        if self.right not in self.options:
            raise UserError(f'comprehension: right = "{self.right}" is none of the options of "{self.text}"')


@dataclass(frozen=True)
class Comprehension:
    """What is asked between instructions and practice. All of it must be right at once, in one of the `attempts`."""

    attempts: int = 2
    questions: tuple[Check, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= MOST_ATTEMPTS:
            raise UserError(f"comprehension.attempts = {self.attempts}: must be from 1 to {MOST_ATTEMPTS}")

    @property
    def right(self) -> tuple[str, ...]:
        """The right answers, in the questions' order."""
        return tuple(question.right for question in self.questions)


NONE = Comprehension()
