"""LR images beside those of a card, and what made those that differ."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from sr3eval.benchmark.kernels import KERNELS, USUAL, makers, makes, scale_of
from sr3eval.benchmark.progress import Tell
from sr3eval.benchmark.set_cards.card import LR, Card
from sr3eval.benchmark.set_cards.compare import Compared, compare, known_of
from sr3eval.benchmark.set_cards.prints import Print, mapped, pixels_of, plain, prints
from sr3eval.files import File
from sr3eval.images import Size, header_size

NEAR = 0.1  # levels on the mean: nearer than two kernels' images are to each other
FEW = 8  # images by which it is seen which of a card's kernels made them
OTHER_HR = "made of another HR image than the set's"


@dataclass(frozen=True)
class _Pairs:
    """LR files with the HR files of their names, all by names without what tells HR from LR."""

    hr: Mapping[str, File]
    lr: Mapping[str, File]
    tell: Tell

    def scale(self) -> int:
        """That of most; 0 where none has any."""
        both = [image_id for image_id in self.lr if image_id in self.hr]
        counted = Counter(scale_of(header_size(self.hr[i]), header_size(self.lr[i])) or 0 for i in both)
        return max(counted, key=lambda scale: counted[scale], default=0)

    def made_by(self, kernel: str, few: int) -> float:
        """The share that a kernel makes, of a few."""
        both = [i for i in self.lr if i in self.hr][:few]
        return sum(makes(kernel, pixels_of(self.hr[i]), pixels_of(self.lr[i])) for i in both) / max(1, len(both))

    def differences(self, part: LR, ids: Collection[str]) -> dict[str, str]:
        """By which LR images are not what the card's kernel makes; those that are have ""."""
        last: list[str] = []  # the kernel found for another image is probably that of the next one

        def difference(image_id: str) -> str:
            if image_id not in self.hr:
                return "altered"
            hr, lr = pixels_of(self.hr[image_id]), pixels_of(self.lr[image_id])
            if scale_of(_size(hr), _size(lr)) != part.scale:
                return f"not 1/{part.scale} of HR"
            if part.made in KERNELS and makes(part.made, hr, lr):
                return ""
            if last and makes(last[0], hr, lr):
                return f"made by {last[0]}, not {part.made}"
            found = makers(hr, lr)
            if found[0].distance >= NEAR or any(made.kernel == part.made for made in found):
                return "altered"
            last[:] = [found[0].kernel]
            return f"made by {found[0].kernel}, not {part.made}"

        return dict(zip(ids, mapped(difference, ids, "kernels", self.tell), strict=True))


def _size(image: Tensor) -> Size:
    height, width = image.shape[-2:]
    return height, width


def compare_lr(
    card: Card, hr_files: Mapping[str, File], hr: Compared, files: Mapping[str, File], tell: Tell
) -> tuple[LR, Compared]:
    """With the part of the card that fits best, of those of the images' scale."""
    found = prints(files, stage="LR", tell=tell)
    by_name = {plain(image_id): path for image_id, path in hr_files.items()}
    by_card = by_name | {image_id: hr_files[own] for image_id, own in hr.known.items()}
    lr_files = {plain(image_id): path for image_id, path in files.items()}
    known = {index: len(known_of(part.listing(), found)) for index, part in enumerate(card.lr) if part.images}
    most = max(known, key=lambda index: known[index], default=None)
    if most is not None and 2 * known[most] > len(files):
        return card.lr[most], _listed(card.lr[most], _Pairs(by_card, lr_files, tell), files, found)
    pairs = _Pairs(by_name, lr_files, tell)
    parts = [part for part in card.lr if part.scale == pairs.scale()] or [LR(pairs.scale())]
    shares = [(pairs.made_by(part.made, FEW) if part.made in KERNELS else 0.0, part.made == USUAL) for part in parts]
    part = parts[shares.index(max(shares))]
    if part.images:
        return part, _listed(part, _Pairs(by_card, lr_files, tell), files, found)
    return part, _by_kernel(part, pairs)


def _listed(part: LR, pairs: _Pairs, files: Mapping[str, File], found: Mapping[str, Print]) -> Compared:
    """With a listing; HR of the pairs is by the ids of the card."""
    compared = compare(part.listing(), files, found)
    altered = [i for i, text in compared.problems if text.startswith("altered") and i in pairs.lr]
    differences = pairs.differences(part, altered)
    return replace(compared, problems=[(i, differences.get(i, text) or OTHER_HR) for i, text in compared.problems])


def _by_kernel(part: LR, pairs: _Pairs) -> Compared:
    """With what the card's kernel makes, if that is known."""
    problems = [(image_id, "missing") for image_id in pairs.hr if image_id not in pairs.lr]
    problems += [(image_id, "without HR") for image_id in pairs.lr if image_id not in pairs.hr]
    if part.made in KERNELS:
        differences = pairs.differences(part, [image_id for image_id in pairs.lr if image_id in pairs.hr])
        problems += [(image_id, text) for image_id, text in differences.items() if text]
    return Compared(problems=problems)
