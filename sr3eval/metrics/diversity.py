"""How different the samples of an input are: their standard deviation, pixel by pixel."""

from torch import Tensor

from sr3eval.metrics import Batch, Convention, PerImage


def diversity(samples: Tensor) -> Tensor:
    """Standard deviation over the samples, unbiased, averaged over pixels and channels, in levels of 255.

    It is what SRFlow's paper (Lugmayr et al. 2020, arXiv:2006.14200) calls diversity sigma; the diversity score of the
    NTIRE challenges on the space of super-resolutions, which compares samples with HR, is another thing.

    Args:
        samples: [K, N, 3, H, W] in [0, 1], K >= 2.

    Returns:
        [N]
    """
    return 255 * samples.std(dim=0, correction=1).flatten(1).mean(dim=1)


def _score(batch: Batch) -> Tensor:
    assert batch.samples is not None  # the convention needs it
    return diversity(batch.samples)


CONVENTION = Convention(
    name="diversity",
    label="Diversity σ",
    higher_is_better=True,
    settings="pixel standard deviation over the samples, unbiased, mean over pixels and channels, mean over images",
    unit="/255",
    decimals=2,
    needs_hr=False,
    needs_samples=True,
)


def build() -> PerImage:
    """Pixel standard deviation over the samples of an input, in levels of 255."""
    return PerImage(CONVENTION, _score)
