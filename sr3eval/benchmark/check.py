"""Are these images the published test set? Bicubic's scores on them, against what papers print.

The printed numbers are of A+'s and SRCNN's test scripts, which later papers copy: the HR image is cut to a multiple of
the scale at the right and the bottom; its Y is rounded to 8 bit (a grey file is its own Y), shrunk and enlarged by
imresize in floats, with no 8-bit LR image in between, and rounded again; `scale` pixels of border are cut. PSNR, and
Wang's SSIM. Measured on public copies: Set5 33.661 / 0.9299, 30.392 / 0.8682, 28.421 / 0.8104; B100 29.558 / 0.8431,
27.207 / 0.7384, 25.961 / 0.6674. An LR image of 8 bit, which models are given, and Y in floats, as BasicSR has it,
make 33.673 / 0.9303 of Set5 x2, which lies within the tolerance.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sr3eval import matlab
from sr3eval.benchmark.kernels import USUAL, cut, maker
from sr3eval.benchmark.set_cards.check import recognised
from sr3eval.benchmark.set_cards.prints import is_grey, pixels_of, plain
from sr3eval.errors import UserError, nearest, number
from sr3eval.files import File
from sr3eval.folders import find_images
from sr3eval.metrics._plane import Channel, plane
from sr3eval.metrics.psnr import psnr
from sr3eval.metrics.ssim import ssim

PSNR_TOLERANCE, SSIM_TOLERANCE = 0.02, 0.0010


@dataclass(frozen=True)
class Score:
    """Means over images: PSNR in dB, SSIM."""

    psnr: float
    ssim: float

    def __str__(self) -> str:
        return f"{self.psnr:.2f} dB / {self.ssim:.4f}"

    def is_near(self, other: "Score") -> bool:
        return abs(self.psnr - other.psnr) <= PSNR_TOLERANCE and abs(self.ssim - other.ssim) <= SSIM_TOLERANCE


@dataclass(frozen=True)
class TestSet:
    """A published set: images, of these grey files, the greatest number that divides every side, bicubic by scale."""

    __test__ = False  # for pytest: not a test

    name: str
    images: int
    scores: Mapping[int, Score]
    grey: int = 0
    divisor: int = 1


def _scores(*values: float) -> dict[int, Score]:
    """{2: Score, 3: Score, 4: Score} of PSNR and SSIM in turns."""
    return {scale: Score(*values[i : i + 2]) for scale, i in ((2, 0), (3, 2), (4, 4))}


# As in DRRN (Tai et al. 2017) and EDSR (Lim et al. 2017), which say the same; Manga109 as in RCAN (Zhang et al. 2018).
SETS = {
    "set5": TestSet("Set5", 5, _scores(33.66, 0.9299, 30.39, 0.8682, 28.42, 0.8104), divisor=4),
    "set14": TestSet("Set14", 14, _scores(30.24, 0.8688, 27.55, 0.7742, 26.00, 0.7027), grey=1),
    "b100": TestSet("B100", 100, _scores(29.56, 0.8431, 27.21, 0.7385, 25.96, 0.6675)),
    "urban100": TestSet("Urban100", 100, _scores(26.88, 0.8403, 24.46, 0.7349, 23.14, 0.6577)),
    "manga109": TestSet("Manga109", 109, _scores(30.80, 0.9339, 26.95, 0.8556, 24.89, 0.7866)),
}
ALIASES = {"bsd100": "b100", "bsds100": "b100"}


def check(name: str, folder: Path, lr_folder: Path | None = None) -> list[str]:
    """Lines that say that `folder` holds the HR images of the test set `name`, or a UserError with a line a reason.

    lr_folder: the set's LR images of one scale, named as the HR images or with x2, _LR and the like at the end; then
    bicubic enlarges these, and that scale alone is checked.
    """
    test_set = _get(name)
    paths = find_images(folder)
    lr_paths = paired(paths, lr_folder) if lr_folder else {}
    scales = [_scale(paths, lr_paths)] if lr_paths else list(test_set.scores)
    found = {scale: bicubic(paths, scale, lr_paths) for scale in scales}
    lines = [f"{test_set.name} x{scale}: {found[scale]}, papers print {test_set.scores[scale]}" for scale in scales]
    if len(paths) == test_set.images and all(found[scale].is_near(test_set.scores[scale]) for scale in scales):
        card = recognised(paths)
        by_card = f", its card's to the last level ({card})" if card else ""
        return [f"{folder}: {number(len(paths), 'image')}, bicubic scores as on {test_set.name}{by_card}", *lines]
    reasons = [*_of_files(test_set, paths), *_of_kernel(paths, lr_paths, scales[0])]
    reasons += _of_conventions(test_set, paths, lr_paths, scales)
    raise UserError(f"{folder}: not {test_set.name} as papers score it", *lines, *reasons)


def _get(name: str) -> TestSet:
    key = ALIASES.get(name.lower(), name.lower())
    if key not in SETS:
        raise UserError(f'unknown test set "{name}": {nearest(name.lower(), SETS)}')
    return SETS[key]


def paired(paths: Mapping[str, File], lr_folder: Path) -> dict[str, File]:
    """{HR id: LR file} of the LR images of one scale; UserError for one that is missing."""
    found = {plain(image_id): path for image_id, path in find_images(lr_folder).items()}
    missing = [image_id for image_id in paths if plain(image_id) not in found]
    if missing:
        raise UserError(f"{lr_folder}: no LR image of {missing[0]}")
    return {image_id: found[plain(image_id)] for image_id in paths}


def _scale(paths: Mapping[str, File], lr_paths: Mapping[str, File]) -> int:
    """The scale between the HR and the LR images: the same of all, and one that papers print."""
    scales = {round(pixels_of(paths[i]).shape[-1] / pixels_of(lr_paths[i]).shape[-1]) for i in paths}
    if len(scales) > 1 or scales.isdisjoint((2, 3, 4)):
        raise UserError(f"LR images: {', '.join(f'x{scale}' for scale in sorted(scales))} smaller; give x2, x3 or x4")
    return scales.pop()


def bicubic(paths: Mapping[str, File], scale: int, lr_paths: Mapping[str, File] | None = None) -> Score:
    """Bicubic's score on HR images by the papers' protocol, or that of their LR files enlarged; by id, both."""
    if lr_paths:
        return _mean(_score(sr, hr, "y", scale) for sr, hr in _from_files(paths, lr_paths, scale))
    return _mean(_papers(paths, scale))


def _papers(paths: Mapping[str, File], scale: int) -> Iterator[Score]:
    """The score of every image by the papers' protocol."""
    for path in paths.values():
        pixels = cut(pixels_of(path), scale)
        y = pixels[:1] if is_grey(path) else matlab.luma(pixels)
        sr = matlab.imresize(matlab.imresize(y.double() / 255, 1 / scale), scale)
        yield _score(matlab.to_8bit(sr), y, "rgb", scale)


def _from_files(paths: Mapping[str, File], lr_paths: Mapping[str, File], scale: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(SR, HR) in RGB, of which LR and SR are 8 bit, as files are."""
    for image_id, path in paths.items():
        hr = cut(pixels_of(path), scale)
        lr = pixels_of(lr_paths[image_id]) if lr_paths else matlab.imresize(hr, 1 / scale)
        sr = matlab.imresize(lr, scale)
        if sr.shape != hr.shape:
            raise UserError(f"{lr_paths[image_id]}: x{scale} of it is not as large as {path} cut to its multiple")
        yield sr, hr


def _score(sr: Tensor, hr: Tensor, channel: Channel, border: int) -> Score:
    """Of 8-bit images [C, H, W]."""
    pair = [plane(image[None].double() / 255, channel, border) for image in (sr, hr)]
    return Score(psnr(*pair).item(), ssim(*pair).item())


def _mean(scores: Iterable[Score]) -> Score:
    values = torch.tensor([(score.psnr, score.ssim) for score in scores], dtype=torch.float64)
    return Score(*values.mean(dim=0).tolist())


def _of_files(test_set: TestSet, paths: Mapping[str, File]) -> Iterator[str]:
    """What is wrong with the files."""
    if len(paths) != test_set.images:
        yield f"- it holds {number(len(paths), 'image')}, and {test_set.name} has {test_set.images}, of HR alone"
    if jpegs := sum(_is_jpeg(path) for path in paths.values()):
        yield f"- {jpegs} of {len(paths)} files are JPEG, whose losses the papers' files do not have"
    grey = sum(is_grey(path) for path in paths.values())
    if grey != test_set.grey:
        # As RGB its Y spans 16 to 235 of 255.
        yield f"- {grey} of the files are grey, and {test_set.grey} of {test_set.name}: RGB copies score 1.32 dB more"
    divisor = _divisor(paths.values())
    if divisor > test_set.divisor:
        yield f"- every side is a multiple of {divisor}: the images have been cut before; take the originals"


def _is_jpeg(path: File) -> bool:
    with path.open("rb") as file, Image.open(file) as image:
        return image.format == "JPEG"


def _divisor(paths: Iterable[File]) -> int:
    """The greatest of the multiples that images are cut to."""
    sides = [side for path in paths for side in pixels_of(path).shape[-2:]]
    return next(n for n in (12, 8, 6, 4, 3, 2, 1) if all(side % n == 0 for side in sides))


def _of_kernel(paths: Mapping[str, File], lr_paths: Mapping[str, File], scale: int) -> Iterator[str]:
    """What made the given LR images, where that is not MATLAB's imresize."""
    if not lr_paths:
        return
    found = maker((pixels_of(path), pixels_of(lr_paths[image_id])) for image_id, path in paths.items())
    if found.kernel != USUAL:
        how = f"{found.exact} of {len(paths)} to the last level, mean difference {found.distance:.2f} levels"
        yield f"- the LR images are made by {found.kernel}, or nearest to it ({how}), not by {USUAL}"


CONVENTIONS: dict[str, tuple[Channel, bool]] = {  # channel, whether the border is cut
    "LR and SR of 8 bit, Y": ("y", True),
    "the same with no border cut": ("y", False),
    "the same in RGB": ("rgb", True),
}


def _of_conventions(
    test_set: TestSet, paths: Mapping[str, File], lr_paths: Mapping[str, File], scales: list[int]
) -> Iterator[str]:
    """What other ways of scoring give on these images, and whether that is what papers print."""
    for name, (channel, has_border_cut) in CONVENTIONS.items():
        parts = []
        for scale in scales:
            pairs = _from_files(paths, lr_paths, scale)
            found = _mean(_score(sr, hr, channel, scale if has_border_cut else 0) for sr, hr in pairs)
            printed = " as printed" if found.is_near(test_set.scores[scale]) else ""
            parts.append(f"x{scale} {found}{printed}")
        yield f"- {name}: {', '.join(parts)}"
