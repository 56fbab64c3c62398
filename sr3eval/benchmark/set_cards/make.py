"""Write the card of a test set from its folders."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sr3eval.benchmark import check
from sr3eval.benchmark.kernels import maker, scale_of
from sr3eval.benchmark.progress import Tell, silent
from sr3eval.benchmark.set_cards.card import HR, LR, UNKNOWN, Bicubic, Card
from sr3eval.benchmark.set_cards.prints import pixels_of, plain, prints
from sr3eval.errors import UserError
from sr3eval.files import File
from sr3eval.folders import find_images
from sr3eval.images import header_size

SCALES = (2, 3, 4)  # of Bicubic's scores, where no LR images say


def make(
    name: str,
    folder: Path | None,
    lr_folders: Sequence[Path] = (),
    multiple: int = 1,
    licence: str = UNKNOWN,
    source: str = UNKNOWN,
    tell: Tell = silent,
) -> Card:
    """The card of a set's HR images, and of its LR images of several scales; or of one folder of LR images alone.

    LR images are named as the HR images, or with x2, _LR and the like at the end.

    Args:
        name: of the set.
        folder: the HR images.
        lr_folders: the LR images, a folder a scale.
        multiple: that the HR images' sides have been cut to.
        licence, source: what the publisher allows, and where.
        tell: is told (stage, done, total) after every image.

    Raises:
        UserError: a folder without images, an image that cannot be read, LR images without HR ones or of other sizes.
    """
    if folder is None:
        (files,) = map(find_images, lr_folders)
        return Card(name, len(files), licence=licence, source=source, lr=(LR(images=_listed(files, "LR", tell)),))
    files = find_images(folder)
    hr = HR(multiple, images=_listed(files, "HR", tell, multiple))
    lr = tuple(sorted((_lr(files, lr_folder, tell) for lr_folder in lr_folders), key=lambda part: part.scale))
    scales = [part.scale for part in lr] or [scale for scale in SCALES if multiple == 1 or multiple % scale == 0]
    scores = [(scale, check.bicubic(files, scale)) for scale in scales]
    bicubic = tuple(Bicubic(scale, round(score.psnr, 3), round(score.ssim, 4)) for scale, score in scores)
    return Card(name, len(files), licence=licence, source=source, hr=(hr,), lr=lr, bicubic=bicubic)


def _listed(files: Mapping[str, File], stage: str, tell: Tell, multiple: int = 1) -> dict[str, str]:
    return {plain(image_id): str(one) for image_id, one in prints(files, multiple, stage, tell).items()}


def _lr(files: Mapping[str, File], folder: Path, tell: Tell) -> LR:
    """What is in a folder of LR images of one scale, and what made them."""
    lr_files = check.paired(files, folder)
    scales = {scale_of(header_size(path), header_size(lr_files[image_id])) for image_id, path in files.items()}
    scale = scales.pop()
    if scales or scale is None:
        raise UserError(f"{folder}: its images are not all smaller than HR by one whole factor")
    found = maker((pixels_of(path), pixels_of(lr_files[image_id])) for image_id, path in files.items())
    made, nearest = (found.kernel, None) if found.exact else (UNKNOWN, str(found))
    return LR(scale, made, found.exact, nearest, images=_listed(lr_files, f"LR x{scale}", tell))
