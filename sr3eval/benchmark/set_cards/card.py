"""Set cards: what a test set is, in a TOML file. Those that come with the package are in assets/cards."""

import functools
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli_w

from sr3eval.benchmark.set_cards.prints import Print
from sr3eval.config import from_dict, read_toml, resolve_path
from sr3eval.errors import UserError, nearest, number

FOLDER = "sr3eval:assets/cards"
UNKNOWN = "unknown"
Listing = dict[str, Print]  # by image id


@dataclass(frozen=True)
class Part:
    """Images of one size. images: `Print` by id, where the files were seen."""

    images: dict[str, str] = field(default_factory=dict, kw_only=True)

    def listing(self, where: str = "") -> Listing:
        """Of its images. Raises UserError for what is no `Print`; `where` is what the message calls the card."""
        return {image_id: Print.parse(text, f"{where}: {image_id}") for image_id, text in self.images.items()}


@dataclass(frozen=True)
class HR(Part):
    """The HR images. cut: sides have been cut to a multiple of it."""

    cut: int = 1


@dataclass(frozen=True)
class LR(Part):
    """LR images.

    scale: how many times smaller than HR; 0 where there is none. made: the kernel, as `kernels.KERNELS` names it, or in
    other words, or "unknown". exact: how many of the images it gives to the last level, where that was tried. nearest:
    in words, where none gives any.
    """

    scale: int = 0
    made: str = UNKNOWN
    exact: int | None = None
    nearest: str | None = None


@dataclass(frozen=True)
class Bicubic:
    """Bicubic's scores by the protocol of `benchmark.check`: PSNR in dB and SSIM of Y, means over images."""

    scale: int
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Card:
    """A test set.

    Attributes:
        name: as papers write it.
        images: how many.
        size: of the images, in words.
        licence: what the publisher allows.
        source: where it is published.
        cite: the paper that it is from.
        use: how papers use it, and the protocol of ours that computes their scores.
        seen: which copy the listings are of; none where no copy was seen.
        hr, lr: what the copy holds; several of HR where it is cut in several ways.
        bicubic: measured on the copy.
    """

    name: str
    images: int
    size: str = ""
    licence: str = UNKNOWN
    source: str = UNKNOWN
    cite: str = ""
    use: str = ""
    seen: str = ""
    hr: tuple[HR, ...] = ()
    lr: tuple[LR, ...] = ()
    bicubic: tuple[Bicubic, ...] = ()

    @property
    def described(self) -> str:
        """A line."""
        listed = "with hashes" if self.seen else "no copy seen"
        return f"{self.name}: {number(self.images, 'image')}, {listed}"


def read(path: Path) -> Card:
    """A card of a TOML file. Raises UserError for what is none."""
    data = read_toml(path)
    try:
        card = from_dict(Card, data)
    except UserError as error:
        raise UserError(f"{path}: not a set card: {error}") from None
    for part in (*card.hr, *card.lr):
        part.listing(str(path))
    return card


def text(card: Card, listings: bool = True) -> str:
    """A card as TOML; without its listings it is short."""
    if not listings:
        hr, lr = (tuple(replace(part, images={}) for part in parts) for parts in (card.hr, card.lr))
        card = replace(card, hr=hr, lr=lr)  # type: ignore[arg-type]
    return tomli_w.dumps(asdict(card, dict_factory=_without_empty))


def _without_empty(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in items if value not in (None, "", (), {})}


def shipped() -> dict[str, Path]:
    """{name: file} of the cards that come with the package."""
    return {path.stem: path for path in sorted(resolve_path(FOLDER).glob("*.toml"))}


def find(name: str) -> Card:
    """A card by the name of a shipped one, or by its file. Raises UserError naming the nearest."""
    if name.endswith(".toml"):
        return read(Path(name))
    known = shipped()
    if name.lower() not in known:
        raise UserError(f'unknown card "{name}": {nearest(name.lower(), known)}; or give a .toml file')
    return read(known[name.lower()])


@functools.cache
def all_shipped() -> tuple[Card, ...]:
    """In the order of their names."""
    return tuple(map(read, shipped().values()))
