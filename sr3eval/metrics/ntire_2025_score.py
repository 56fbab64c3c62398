"""The score of NTIRE 2025's perceptual track (image super-resolution ×4): six metrics in one number."""

from typing import Any

from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.metrics import Convention, PerImage, composite, load

# As the challenge's eval.py has them from pyiqa, in the order of `ntire_2025_score`.
PARTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lpips", {}),
    ("dists", {}),
    ("pyiqa", {"metric": "clipiqa"}),
    ("pyiqa", {"metric": "maniqa"}),
    ("pyiqa", {"metric": "musiq"}),
    ("niqe", {"luma": "yiq"}),
)


def ntire_2025_score(
    lpips: Tensor, dists: Tensor, clipiqa: Tensor, maniqa: Tensor, musiq: Tensor, niqe: Tensor
) -> Tensor:
    """(1 - LPIPS) + (1 - DISTS) + CLIP-IQA + MANIQA + MUSIQ / 100 + (10 - NIQE) / 10 of each image, [N].

    Source: README of the challenge (github.com/zhengchen1999/NTIRE2025_ImageSR_x4). It puts the means over all images
    into this formula, with a last term of at least 0. Without that bound here, the mean over images is the challenge's
    score wherever the mean NIQE is at most 10, although single images may be above.
    """
    return (1 - lpips) + (1 - dists) + clipiqa + maniqa + musiq / 100 + (10 - niqe) / 10


def build() -> PerImage:
    """The score from its parts, which other metrics of the run share."""
    convention = Convention(
        name="ntire_2025_score",
        label="NTIRE 2025 score",
        higher_is_better=True,
        settings="(1 - LPIPS) + (1 - DISTS) + CLIP-IQA + MANIQA + MUSIQ / 100 + (10 - NIQE) / 10, mean over images",
    )
    return composite(convention, [_part(name, options) for name, options in PARTS], ntire_2025_score)


def _part(name: str, options: dict[str, Any]) -> PerImage:
    part = load(name, **options)
    if not isinstance(part, PerImage):
        raise UserError(f"ntire_2025_score: {name} gives no score for single images")
    return part
