"""Consistency: does the output, downsampled again, give back its input?"""

from torch import Tensor

from sr3eval.images import bicubic_down
from sr3eval.metrics import Batch, Convention, PerImage


def consistency(sr: Tensor, lr: Tensor) -> Tensor:
    """Mean square of D(sr) - lr over channels and pixels.

    D is `images.bicubic_down`, neither rounded nor clamped afterwards. The range of the paper's values is not stated;
    [0, 1] is the reading that fits its PULSE column.

    Args:
        sr: outputs, [N, 3, H, W] in [0, 1].
        lr: their inputs, [N, 3, h, w] in [0, 1].

    Returns:
        [N]; a run's rows have it times 1e5, as the paper.
    """
    down = bicubic_down(sr, (lr.shape[-2], lr.shape[-1]))
    return (down - lr).square().flatten(1).mean(dim=1)


def _score(batch: Batch) -> Tensor:
    assert batch.lr is not None  # the convention needs it
    return consistency(batch.sr, batch.lr) * 1e5


CONVENTION = Convention(
    name="consistency",
    label="Consistency",
    higher_is_better=False,
    settings="MSE x 1e5 in [0, 1], D: bicubic a = -0.5 antialiased, 8-bit outputs and inputs, mean over images",
    unit="×10⁻⁵",
    decimals=2,
    needs_hr=False,
    needs_lr=True,
)


def build() -> PerImage:
    """Consistency x 1e5, as the paper prints it."""
    return PerImage(CONVENTION, _score)
