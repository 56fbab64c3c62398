"""The images of a folder beside those of a card's listing: which are there, and how the others differ."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sr3eval.benchmark.set_cards.card import Listing
from sr3eval.benchmark.set_cards.prints import Print, pixels_of, plain
from sr3eval.files import File

SAME = 8  # levels: parts of an altered picture differ by less on the mean, those of another one hardly do
Problem = tuple[str, str]  # (image, or "" where it is of all; what is the matter)


@dataclass(frozen=True)
class Compared:
    """A folder and a listing. known: the folder's file of each image of the card that it has to the last level."""

    known: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    same_files: int = 0
    renamed: int = 0


def compare(listed: Listing, files: Mapping[str, File], found: Mapping[str, Print]) -> Compared:
    """Files, whose prints were `found`, with a listing. A file of the same bytes is the same image, however decoded."""
    pixels = {one.file: one.pixels for one in listed.values() if one.file != "-"}
    found = {own: replace(one, pixels=pixels.get(one.file, one.pixels)) for own, one in found.items()}
    known = known_of(listed, found)
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
    renamed = {image_id: own for image_id, own in known.items() if plain(own) != image_id}
    problems += [(own, f"the picture of {i}") for i, own in renamed.items() if plain(own) in listed]
    problems += [
        (own, f"{'grey' if found[own].is_grey else 'RGB'}, and {'grey' if listed[i].is_grey else 'RGB'} in the set")
        for i, own in known.items()
        if found[own].is_grey != listed[i].is_grey
    ]
    same = sum(found[own].file == listed[image_id].file for image_id, own in known.items())
    return Compared(known, problems, same, len(renamed))


def known_of(listed: Listing, found: Mapping[str, Print]) -> dict[str, str]:
    """{image of the card: file of the same pixels}: of its own name, or of another one."""
    own = {plain(image_id): image_id for image_id in found}
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
    own = {plain(image_id): image_id for image_id in left}
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
