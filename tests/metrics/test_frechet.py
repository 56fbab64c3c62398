"""The Fréchet distance against other roads to it, and the moments it is of."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sr3eval.features.moments import Moments
from sr3eval.metrics.fid import distance, frechet_distance, frechet_distance_of_factors
from sr3eval.significance import jackknife_error, t_interval


def moments_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False))


def by_square_root(mu1, sigma1, mu2, sigma2) -> float:
    root = scipy.linalg.sqrtm(sigma1 @ sigma2)
    return float(((mu1 - mu2) ** 2).sum() + np.trace(sigma1 + sigma2 - 2 * root).real)


def by_nuclear_norm(x: np.ndarray, y: np.ndarray) -> float:
    (mu1, sigma1), (mu2, sigma2) = moments_of(x), moments_of(y)
    centred = [(x - mu1) / np.sqrt(len(x) - 1), (y - mu2) / np.sqrt(len(y) - 1)]
    root = np.linalg.norm(centred[0] @ centred[1].T, ord="nuc")
    return float(((mu1 - mu2) ** 2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * root)


def clouds(n: int, d: int, m: int | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of n and m rows with decaying, differing spectra, as features have."""
    rng = np.random.default_rng(seed)
    spectrum = np.exp(-np.arange(d) / (d / 4))
    mixing = rng.normal(size=(d, d)) / np.sqrt(d)
    return rng.normal(size=(n, d)) * spectrum, rng.normal(size=(m or n, d)) @ mixing * spectrum[::-1] + 0.1


def test_full_rank_equals_scipy_s_square_root():
    x, y = clouds(400, 96)
    ours = frechet_distance(*moments_of(x), *moments_of(y))
    assert ours == pytest.approx(by_square_root(*moments_of(x), *moments_of(y)), rel=1e-9)
    assert ours == pytest.approx(by_nuclear_norm(x, y), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (10, 30), (63, 64), (30, 500), (500, 30)])
def test_singular_covariances_have_their_exact_distance(n, m):
    """Fewer rows than the 64 dimensions on one side or on both; also by way of the metric's own summaries."""
    x, y = clouds(n, 64, m)
    assert frechet_distance(*moments_of(x), *moments_of(y)) == pytest.approx(by_nuclear_norm(x, y), rel=1e-6)
    summaries = [Moments(), Moments()]
    for summary, rows in zip(summaries, (x, y), strict=True):
        summary.add([str(i) for i in range(len(rows))], torch.from_numpy(rows))
    assert distance(*summaries) == pytest.approx(by_nuclear_norm(x, y), rel=1e-6)


def test_repeated_images_make_singular_covariances_too():
    """More rows than dimensions, but 20 different ones: the streamed sums, whose rounding must not show."""
    rng = np.random.default_rng(0)
    few, other = rng.gamma(0.5, size=(20, 64)), rng.gamma(0.5, size=(500, 64))
    repeated = few[rng.integers(0, 20, 500)]
    summaries = [Moments(), Moments()]
    for summary, rows in zip(summaries, (repeated, other), strict=True):
        summary.add([""] * 500, torch.from_numpy(rows))
    assert distance(*summaries) == pytest.approx(by_nuclear_norm(repeated, other), rel=1e-7)
    assert abs(distance(summaries[0], summaries[0])) < 1e-6


def test_factors_give_the_exact_distance():
    x, y = clouds(20, 64, 33)
    factors = [(r.mean(axis=0), (r - r.mean(axis=0)) / np.sqrt(len(r) - 1)) for r in (x, y)]
    assert frechet_distance_of_factors(*factors[0], *factors[1]) == pytest.approx(by_nuclear_norm(x, y), rel=1e-10)


@pytest.mark.parametrize("smallest", [1e-4, 1e-10, 1e-13, 1e-16, 1e-30, 0])
def test_ill_conditioned_covariances_of_one_basis_have_a_closed_form(smallest):
    """Covariances that commute: the sum of (sqrt a - sqrt b)^2 over their eigenvalues."""
    d = 60
    basis = scipy.stats.ortho_group.rvs(d, random_state=0)
    a = np.geomspace(1, smallest, d) if smallest else np.r_[np.ones(d // 2), np.zeros(d // 2)]
    b = np.roll(a, d // 3)
    sigma1, sigma2 = ((basis * values) @ basis.T for values in (a, b))
    expected = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    for pair in ((sigma1, sigma2), (sigma2, sigma1)):
        found = frechet_distance(np.zeros(d), pair[0], np.zeros(d), pair[1])
        assert found == pytest.approx(expected, rel=1e-6)


ranks = st.integers(0, 24)


@settings(deadline=None, max_examples=60)
@given(ranks, ranks, st.floats(-6, 6), st.integers(0, 2**32 - 1))
def test_distance_is_symmetric_never_negative_and_zero_of_itself(rank1, rank2, decades, seed):
    """Of any ranks and scales, from a constant (rank 0) to full rank."""
    rng, d = np.random.default_rng(seed), 16
    factors = [rng.normal(size=(rank, d)) * np.exp(-np.arange(d) * rng.uniform(0, 2)) for rank in (rank1, rank2)]
    first, second = ((np.zeros(d), factor.T @ factor * 10**decades) for factor in factors)
    scale = max(np.trace(first[1]), np.trace(second[1]), 1)
    forth, back = frechet_distance(*first, *second), frechet_distance(*second, *first)
    assert forth == pytest.approx(back, abs=1e-6 * scale)
    assert forth >= -1e-6 * scale
    assert isinstance(forth, float)
    assert frechet_distance(*first, *first) == pytest.approx(0, abs=1e-6 * scale)


def test_a_set_is_at_distance_zero_from_itself_at_inception_s_size():
    """2048 dimensions from 40 rows of Inception's scale: within 1e-6 of zero on both roads."""
    rows = np.random.default_rng(0).gamma(0.5, size=(40, 2048))
    summaries = [Moments(), Moments()]
    for summary in summaries:
        summary.add([str(i) for i in range(40)], torch.from_numpy(rows))
    assert abs(distance(*summaries)) < 1e-6
    assert abs(frechet_distance(*summaries[0].statistics(), *summaries[1].statistics())) < 1e-6


def test_shapes_and_numbers_that_cannot_be_are_refused():
    mu, sigma = np.zeros(3), np.eye(3)
    for wrong in ((mu[:2], sigma), (mu, sigma[:2]), (mu[:, None], sigma)):
        with pytest.raises(ValueError, match="do not fit"):
            frechet_distance(mu, sigma, *wrong)
    for wrong in ((mu * np.nan, sigma), (mu, sigma + np.inf)):
        with pytest.raises(ValueError, match="finite"):
            frechet_distance(*wrong, mu, sigma)


@settings(deadline=None, max_examples=60)
@given(
    d=st.integers(1, 8),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    offset=st.sampled_from([0.0, 0.4, 50.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_moments_are_numpy_s_however_they_are_merged(d, sizes, order, offset, seed):
    """Parts on either side of d rows, added in any order and grouping."""
    rng = np.random.default_rng(seed)
    rows = [offset + rng.normal(size=(size, d)) for size in [*sizes, 2]]
    parts = []
    for part in rows:
        summary = Moments()
        for chunk in np.array_split(part, 2):
            if len(chunk):
                summary.add([""] * len(chunk), torch.from_numpy(chunk))
        parts.append(summary)
    while len(parts) > 1:
        order.shuffle(parts)
        parts.append(parts.pop() + parts.pop())
    whole = np.concatenate(rows)
    mean, covariance = parts[0].statistics()
    assert parts[0].n == len(whole)
    assert (parts[0].factor() is None) == (len(whole) > d)
    np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(covariance, np.atleast_2d(np.cov(whole, rowvar=False)), rtol=1e-9, atol=1e-9)


def test_memory_of_moments_does_not_grow_with_the_number_of_images():
    summary = Moments()
    for _ in range(40):
        summary.add([""] * 10, torch.rand(10, 16))
        assert sum(map(len, summary.rows)) <= 16
    assert summary.n == 400


def test_jackknife_interval_of_a_distance_covers_the_true_one():
    """Two Gaussians of known distance, 160 images each in 20 blocks: 95 % intervals hold it about as often."""
    rng, hits, d = np.random.default_rng(0), 0, 2
    sigma = np.diag([1.5**2, 0.8**2])
    true = frechet_distance(np.zeros(d), np.eye(d), np.full(d, 0.7), sigma)
    for _ in range(150):
        x = rng.normal(size=(20, 8, d))
        y = 0.7 + rng.normal(size=(20, 8, d)) * [1.5, 0.8]

        def of(kept, x=x, y=y):
            return frechet_distance(*moments_of(x[kept].reshape(-1, d)), *moments_of(y[kept].reshape(-1, d)))

        value = of(np.arange(20))
        without = np.array([of(np.delete(np.arange(20), block)) for block in range(20)])
        low, high = t_interval(value, jackknife_error(value, 160, without, np.full(20, 152.0)), 20)
        hits += low <= true <= high
    assert 0.89 <= hits / 150 <= 0.995
