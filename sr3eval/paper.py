"""The paper's tables and figures, each by one command: `benchmark.py paper`."""

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from sr3eval import doctor
from sr3eval.config import from_dict, read_toml
from sr3eval.errors import UserError, nearest, number

ONCE = ("stimuli", "statistics")  # commands that refuse to write what is there
INDEX = Path("configs/paper/index.toml")  # in the repository, whose folder commands are run in


@dataclass(frozen=True)
class Item:
    """A table or figure.

    Attributes:
        title: what it shows.
        commands: what makes it, in order; of a study, what makes its pictures.
        people: what the host of the study does then.
        after: what is made of the answers.
        smoke: the same on embedded data, of a study with simulated answers.
    """

    title: str
    commands: tuple[str, ...]
    smoke: tuple[str, ...]
    people: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def made(self) -> list[str]:
        """What its commands write, which so need not be there."""
        return [path for command in self.commands for path in _given(command, "--out")]

    @property
    def answers(self) -> list[Path]:
        """The files of the answers that it waits for."""
        return sorted({Path(path) for command in self.after for path in _given(command, "--responses")})


def items() -> dict[str, Item]:
    """By name, "table_2", in the paper's order. Raises UserError outside of the repository."""
    if not INDEX.is_file():
        raise UserError(f"{INDEX}: not here; run this in the folder of the repository, which has the paper's configs")
    return {name: from_dict(Item, table, name) for name, table in read_toml(INDEX).items()}


def lacking(item: Item) -> list[str]:
    """What of its data, weights and packages is missing here, each once; of a training, the command that makes it."""
    found: list[str] = []
    for command in itertools.filterfalse(_is_done, item.commands):
        words = shlex.split(command)
        if "statistics" in words and not Path(images := words[words.index("statistics") + 1]).is_dir():
            found.append(f"{images}: no such folder")
        for config in (word for word in words if word.endswith(".toml")):
            data = read_toml(Path(config), _given(command, "--set"))
            if "networks" not in data:
                found += [f.text for f in doctor.of_config(data, Path("runs")) if f.state == "missing"]
    told = [_told(text) for text in found if not any(path in text for path in item.made)]
    return list(dict.fromkeys(told))


def _told(text: str) -> str:
    """A finding without the remedy for one's own config; these are the paper's."""
    what = text.partition("; ")[0]
    trained = re.match(r"runs/train/([^/]+)/", what)
    recipe = next(Path("configs/train").rglob(f"{trained[1]}.toml"), None) if trained else None
    return f"{what}; sr3eval train {recipe}" if recipe else what


def listing() -> Iterator[str]:
    """Lines that say of every item what it is, its command, and what it needs that is not here."""
    for name, item in items().items():
        missing, people = lacking(item), ", and people to ask" if item.people else ""
        yield f"{name.replace('_', ' ').capitalize()}: {item.title}"
        yield f"  python benchmark.py paper {name}"
        yield f"  {number(len(missing), 'thing')} missing{people}" if missing else f"  all it needs is here{people}"
        yield from (f"  - {text}" for text in missing)
        yield ""
    yield "`python benchmark.py weights` says who publishes the files in weights/; docs/paper.md, the rest."


def make(names: Sequence[str], smoke: bool, programs: Mapping[str, click.Command]) -> Iterator[str]:
    """Run the commands of items in order, and yield each before it runs; one that several items have runs once.

    What was made is kept, so that a repetition resumes. smoke: on embedded data. programs: what runs a command, by the
    name of its script or module. A study without answers ends with what its host is to do. Raises UserError for an
    unknown name, and click's Exit where a command ends with another code than 0.
    """
    known = items()
    for name in names:
        if name not in known:
            raise UserError(f'the paper has no "{name}": {nearest(name, known)}')
    chosen = [known[name] for name in names]
    yield from _run([command for item in chosen for command in (item.smoke if smoke else item.commands)], programs)
    for item in chosen if not smoke else []:
        waited = [path for path in item.answers if not path.exists()]
        if waited:
            yield "Now the study, which docs/study.md explains. Open it to people, wait, and export their answers:"
            yield from item.people
            yield f"Then run this again: it takes {' and '.join(map(str, waited))}."
        else:
            yield from _run(item.after, programs)


def _run(commands: Sequence[str], programs: Mapping[str, click.Command]) -> Iterator[str]:
    for command in itertools.filterfalse(_is_done, dict.fromkeys(commands)):
        program, *given = (word for word in shlex.split(command) if word not in ("python", "-m"))
        yield f"$ {command}"
        if code := programs[program].main(given, prog_name=program, standalone_mode=False):
            raise click.exceptions.Exit(code)  # it was interrupted, say


def _is_done(command: str) -> bool:
    """Whether it is one of those that are run once, and has been."""
    return not set(ONCE).isdisjoint(shlex.split(command)) and all(Path(p).exists() for p in _given(command, "--out"))


def _given(command: str, option: str) -> list[str]:
    """The values of an option of a command."""
    words = shlex.split(command)
    return [value for word, value in itertools.pairwise(words) if word == option]
