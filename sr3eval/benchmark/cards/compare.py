"""Whether a folder holds the images of a set card, and what differs, image by image."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sr3eval.benchmark.cards.card import HR, LR, Card, Listing, Part, all_shipped, find
from sr3eval.benchmark.cards.prints import Print, pixels_of, prints
from sr3eval.benchmark.check import SIGN
from sr3eval.benchmark.kernels import KERNELS, distance, makers, scale_of
from sr3eval.benchmark.progress import Tell, silent
from sr3eval.errors import UserError, number
from sr3eval.files import File
from sr3eval.folders import find_images
from sr3eval.images import Size, header_size

SAME = 8  # levels: parts of an altered picture differ by less on the mean, those of another one hardly do
NEAR = 0.1  # levels on the mean: nearer than two kernels' images are to each other

Problem = tuple[str, str]  # (image, or "" where it is of all; what is the matter)
OTHER_HR = "made of another HR image than the set's"


@dataclass(frozen=True)
class Compared:
    """A folder and a listing. known: the folder's file of each image of the card that it has to the last level."""

    known: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    same_files: int = 0
    renamed: int = 0


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
        part, lr = _lr(card, hr_files, hr, lr_files, tell)
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
    """With the listing whose sizes fit best, and that has most of the pixels."""
    parts = [part for part in card.hr if part.images]
    if not parts:
        return Compared(problems=_count(card, files))
    sizes = [header_size(path) for path in files.values()]
    part = max(parts, key=lambda part: (_fit(part, sizes), -part.cut))
    return compare(part.listing(), files, prints(files, part.cut, "HR", tell))


def _count(card: Card, files: Mapping[str, File]) -> list[Problem]:
    if len(files) == card.images:
        return []
    return [("", f"{number(len(files), 'image')}, and {card.name} has {card.images:,}")]


def compare(listed: Listing, files: Mapping[str, File], found: Mapping[str, Print]) -> Compared:
    """Files, whose prints were `found`, with a listing. A file of the same bytes is the same image, however decoded."""
    pixels = {one.file: one.pixels for one in listed.values()}
    found = {own: replace(one, pixels=pixels.get(one.file, one.pixels)) for own, one in found.items()}
    known = _known(listed, found)
    left = {own: one for own, one in found.items() if own not in set(known.values())}
    missing = {image_id: one for image_id, one in listed.items() if image_id not in known}
    pairs = _pairs(missing, left)
    problems = [(image_id, _difference(missing[image_id], left[own], files[own])) for image_id, own in pairs.items()]
    problems += [(image_id, "missing") for image_id in missing if image_id not in pairs]
    copies = {one.pixels: image_id for image_id, one in listed.items()}
    problems += [
        (own, f"additional, a copy of {copies[left[own].pixels]}" if left[own].pixels in copies else "additional")
        for own in left
        if own not in pairs.values()
    ]
    renamed = {image_id: own for image_id, own in known.items() if _plain(own) != image_id}
    problems += [(own, f"the picture of {i}") for i, own in renamed.items() if _plain(own) in listed]
    problems += [
        (own, f"{'grey' if found[own].is_grey else 'RGB'}, and {'grey' if listed[i].is_grey else 'RGB'} in the set")
        for i, own in known.items()
        if found[own].is_grey != listed[i].is_grey
    ]
    same = sum(found[own].file == listed[image_id].file for image_id, own in known.items())
    return Compared(known, problems, same, len(renamed))


def _plain(image_id: str) -> str:
    return SIGN.sub("", image_id)


def _known(listed: Listing, found: Mapping[str, Print]) -> dict[str, str]:
    """{image of the card: file of the same pixels}: of its own name, or of another one."""
    own = {_plain(image_id): image_id for image_id in found}
    known = {i: own[i] for i, one in listed.items() if i in own and found[own[i]].pixels == one.pixels}
    taken = set(known.values())
    others: dict[str, list[str]] = {}
    for image_id, one in found.items():
        if image_id not in taken:
            others.setdefault(one.pixels, []).append(image_id)
    for image_id, one in listed.items():
        if image_id not in known and others.get(one.pixels):
            known[image_id] = others[one.pixels].pop(0)
    return known


def _pairs(missing: Listing, left: Mapping[str, Print]) -> dict[str, str]:
    """{image of the card: the file that stands in its place}: of its name, or else the most alike."""
    own = {_plain(image_id): image_id for image_id in left}
    pairs = {image_id: own[image_id] for image_id in missing if image_id in own}
    free = [image_id for image_id in left if image_id not in pairs.values()]
    for image_id in missing:
        if image_id not in pairs and free:
            nearest = min(free, key=lambda other: missing[image_id].unlike(left[other]))
            if missing[image_id].unlike(left[nearest]) <= SAME:
                pairs[image_id] = nearest
                free.remove(nearest)
    return pairs


def _difference(listed: Print, found: Print, file: File) -> str:
    """How a file differs from the image that it stands for."""
    image = pixels_of(file)
    height, width = listed.sides
    place = listed.place_in(image)
    if place is not None:
        return _moved((image.shape[-2] - height, image.shape[-1] - width), place)
    if found.sides != listed.sides:
        return f"{found.sides[1]}x{found.sides[0]} pixels, and {width}x{height} in the set"
    return "altered" if listed.unlike(found) <= SAME else "another picture"


def _moved(more: tuple[int, int], place: tuple[int, int]) -> str:
    """In words. more: rows and columns more than the card's image has; place: see `Print.place_in`."""
    if more == (0, 0):
        (down, right) = (offset - 1 for offset in place)
        parts = [f"{abs(down)} px {'down' if down > 0 else 'up'}"] if down else []
        parts += [f"{abs(right)} px to the {'right' if right > 0 else 'left'}"] if right else []
        return f"shifted by {' and '.join(parts)}" if parts else "altered at its outermost pixels"
    edges = {
        "top": place[0] - 1,
        "bottom": more[0] - place[0] + 1,
        "left": place[1] - 1,
        "right": more[1] - place[1] + 1,
    }
    parts = [f"{abs(n)} px {'more' if n > 0 else 'less'} at the {edge}" for edge, n in edges.items() if n]
    return ", ".join(parts)


def _lr(
    card: Card, hr_files: Mapping[str, File], hr: Compared, files: Mapping[str, File], tell: Tell
) -> tuple[LR, Compared]:
    """With the part of the card that fits best, of those of the images' scale."""
    found = prints(files, stage="LR", tell=tell)
    by_name = {_plain(image_id): path for image_id, path in hr_files.items()}
    by_card = by_name | {image_id: hr_files[own] for image_id, own in hr.known.items()}
    counted = [(len(_known(part.listing(), found)), part.scale) for part in card.lr if part.images]
    most, scale = max(counted, default=(0, 0))
    scale = scale if most else _scale(by_name, files) or 0
    parts = [part for part in card.lr if part.scale == scale] or [LR(scale)]
    every = [
        (part, _listed(part, by_card, files, found) if part.images else _by_kernel(part, by_name, files))
        for part in parts
    ]
    return min(every, key=lambda one: len(one[1].problems))


def _listed(part: LR, hr_of: Mapping[str, File], files: Mapping[str, File], found: Mapping[str, Print]) -> Compared:
    """With a listing; hr_of: by the ids of the card."""
    own = {_plain(image_id): path for image_id, path in files.items()}
    compared = compare(part.listing(), files, found)
    problems = [
        (i, _kernel(part, hr_of.get(i), own[i]) or OTHER_HR if text.startswith("altered") and i in own else text)
        for i, text in compared.problems
    ]
    return replace(compared, problems=problems)


def _scale(hr_files: Mapping[str, File], files: Mapping[str, File]) -> int | None:
    """That of most LR images of an HR image's name."""
    pairs = ((hr_files.get(_plain(i)), path) for i, path in files.items())
    counted = Counter(scale_of(pixels_of(hr), pixels_of(path)) for hr, path in pairs if hr is not None)
    return max(counted, key=lambda scale: counted[scale], default=None)


def _by_kernel(part: LR, hr_files: Mapping[str, File], files: Mapping[str, File]) -> Compared:
    """With what the card's kernel makes, if that is known; hr_files: by the names of the LR files."""
    own = {_plain(image_id): path for image_id, path in files.items()}
    problems = [(image_id, "missing") for image_id in hr_files if image_id not in own]
    for image_id, path in own.items():
        if image_id not in hr_files:
            problems.append((image_id, "without HR"))
        elif part.made in KERNELS and (text := _kernel(part, hr_files[image_id], path)):
            problems.append((image_id, text))
    return Compared(problems=problems)


def _kernel(part: LR, hr_file: File | None, lr_file: File) -> str:
    """What made an LR image that is not the card's; nothing where the card's kernel did."""
    if hr_file is None:
        return "altered"
    hr, lr = pixels_of(hr_file), pixels_of(lr_file)
    if scale_of(hr, lr) != part.scale:
        return f"not 1/{part.scale} of HR"
    if part.made in KERNELS and distance(part.made, hr, lr) == 0:
        return ""
    found = makers(hr, lr)
    if any(made.kernel == part.made for made in found):
        return "altered"
    return f"made by {found[0].kernel}, not {part.made}" if found[0].distance < NEAR else "altered"


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
