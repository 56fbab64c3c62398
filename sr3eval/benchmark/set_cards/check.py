"""Whether folders hold the images of a set card."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sr3eval.benchmark.kernels import KERNELS
from sr3eval.benchmark.progress import Tell, silent
from sr3eval.benchmark.set_cards.card import HR, Card, Part, all_shipped, find
from sr3eval.benchmark.set_cards.compare import Compared, Problem, compare
from sr3eval.benchmark.set_cards.lr import compare_lr
from sr3eval.benchmark.set_cards.prints import prints
from sr3eval.errors import UserError, number
from sr3eval.files import File
from sr3eval.folders import find_images
from sr3eval.images import Size, header_size


def check(card: Card, folder: Path | None, lr_folders: Sequence[Path] = (), tell: Tell = silent) -> list[str]:
    """Lines that say that the folders hold a card's images, HR and LR.

    Images are known by their pixels, whatever their names; HR images may be whole where the card's are cut. LR images
    of a set whose card lists none are compared with what its kernel makes of the HR images.

    Args:
        card: see `chosen`.
        folder: of the HR images; None where the set has none.
        lr_folders: of LR images, one a scale.
        tell: is told (stage, done, total) after every image.

    Raises:
        UserError: what is missing, additional, altered, shifted or cut by a pixel, or made by another kernel: a line
            for each kind, with the names of all images.
    """
    said: list[str] = []
    problems: list[str] = []
    hr_files = find_images(folder) if folder else {}
    hr = _hr(card, hr_files, tell) if folder else Compared()
    if folder:
        said.append(_said("HR", hr, len(hr_files)))
        problems += _lines("HR", hr.problems)
    for lr_folder in lr_folders:
        lr_files = find_images(lr_folder)
        part, lr = compare_lr(card, hr_files, hr, lr_files, tell)
        name = f"LR x{part.scale}" if part.scale else "LR"
        said.append(_said(name, lr, len(lr_files), part.made))
        problems += _lines(name, lr.problems)
    if problems:
        raise UserError(f"{folder or lr_folders[0]}: not {card.name} as its card has it", *problems)
    seen = card.seen or "no copy was seen: the number of images, and what made LR images, is all that is checked"
    return [f"{folder or lr_folders[0]}: {card.name} ({seen})", *said]


def chosen(name: str | None, folder: Path) -> Card:
    """The card of that name or file; else FOLDER.toml beside the folder; else the one whose sizes of images fit best.

    Raises UserError where none fits half of the images.
    """
    beside = folder.resolve().with_suffix(".toml")
    if name is not None or beside.is_file():
        return find(name or str(beside))
    sizes = [header_size(path) for path in find_images(folder).values()]
    parts = [(part, card) for card in all_shipped() for part in (*card.hr, *card.lr) if part.images]
    fits = [(_fit(part, sizes), card) for part, card in parts]
    most, card = max(fits, key=lambda one: one[0])
    if 2 * most < max(card.images, len(sizes)):
        raise UserError(f"{folder}: fits none of the cards with hashes; name one with --card, see `list cards`")
    return card


def _fit(part: Part, sizes: Iterable[Size]) -> int:
    """How many images of these sizes the part has, once sides are cut as its are."""
    multiple = part.cut if isinstance(part, HR) else 1
    given = Counter(tuple(side - side % multiple for side in size) for size in sizes)
    return (given & Counter(one.sides for one in part.listing().values())).total()


def _said(name: str, compared: Compared, images: int, made: str = "") -> str:
    asides = [f"made by {made}"] if made in KERNELS else []
    asides += [f"{compared.same_files} files to the byte"] if compared.same_files else []
    asides += [f"{compared.renamed} under other names"] if compared.renamed else []
    return f"{name}: {number(images, 'image')}" + (f" ({', '.join(asides)})" if asides else "")


def _lines(name: str, problems: Iterable[Problem]) -> Iterator[str]:
    """One for each kind of problem."""
    kinds: dict[str, list[str]] = {}
    for image_id, text in problems:
        kinds.setdefault(text, []).append(image_id)
    yield from (f"- {name}: {text}{': ' if any(ids) else ''}{', '.join(ids)}" for text, ids in kinds.items())


def _hr(card: Card, files: Mapping[str, File], tell: Tell) -> Compared:
    """With the listing whose sizes fit best, and that has most pixels of those."""
    parts = [part for part in card.hr if part.images]
    if not parts:
        return Compared(problems=_count(card, files))
    sizes = [header_size(path) for path in files.values()]
    part = max(parts, key=lambda part: (_fit(part, sizes), _area(part)))
    return compare(part.listing(), files, prints(files, part.cut, "HR", tell))


def _area(part: Part) -> int:
    return sum(math.prod(one.sides) for one in part.listing().values())


def _count(card: Card, files: Mapping[str, File]) -> list[Problem]:
    if len(files) == card.images:
        return []
    return [("", f"{number(len(files), 'image')}, and {card.name} has {card.images:,}")]


def recognised(files: Mapping[str, File]) -> str | None:
    """The name of the card that comes with us whose HR images these files are, to the last level."""
    candidates = [(card, part) for card in all_shipped() for part in card.hr if len(part.images) == len(files)]
    sizes = [header_size(path) for path in files.values()] if candidates else []
    for card, part in candidates:
        if _fit(part, sizes) == len(files):
            compared = compare(part.listing(), files, prints(files, part.cut))
            if not compared.problems:
                return card.name
    return None
