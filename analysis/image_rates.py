"""Fool rates of single images, shrunk towards the others: the extremes of many noisy rates are mostly noise."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from analysis.clusters import groups
from analysis.errors import DataError
from analysis.fool_rate import CONDITION
from analysis.proportions import LEVEL, wilson
from analysis.tables import judgements, require, require_list

Array = NDArray[np.float64]

# Bounds of the fit, of log(a / b) and log(a + b): at the upper one, images do not differ beyond chance.
BOUNDS = ((-12.0, 12.0), (np.log(1e-2), np.log(1e6)))
# The grid of the posterior: of the mean, in steps on the logit scale; of the intraclass correlation's square root.
MEANS, ROOTS = np.linspace(-4, 4, 41), (np.arange(100) + 0.5) / 100
RESULTS = [
    *("image_id", "n", "k", "fool_rate", "wilson_low", "wilson_high"),
    *("shrunk", "shrunk_low", "shrunk_high", "a", "b", "note"),
]


def image_rates(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """The fool rate of each image in each group of test trials, from the lowest to the highest shrunk one.

    Columns: `by`, study (images of two studies are two), image_id, n, k, fool_rate = k / n with its Wilson interval;
    shrunk = (k + a) / (n + a + b), where Beta(a, b) is the distribution of rates over images that makes the counts most
    likely, with a 95 % interval that does not take a and b as known (`posterior_interval`); a, b; note. Ties are in
    order of ids.
    """
    trials = judgements(responses, by)
    columns = list(dict.fromkeys([*by, "study", *RESULTS]))
    parts = [_shrunk(part).assign(**key) for key, part in groups(trials, by) if len(part)]
    rates = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return rates[columns]


def beta_binomial(k: ArrayLike, n: ArrayLike) -> tuple[float, float]:
    """(a, b) of the Beta distribution of rates under which k of n, one entry an image, are most likely.

    Where the counts differ no more than by chance, a + b is 10^6: the rates are all the same. DataError for fewer than
    two images, where all responses are the same, and where no image has two: a + b could then be anything.
    """
    pairs = np.column_stack([np.asarray(k, float), np.asarray(n, float)])
    counts, images = np.unique(pairs, axis=0, return_counts=True)
    picked, shown = counts.T
    if images.sum() < 2:
        raise DataError("a beta-binomial needs two images or more")
    if not np.all((picked >= 0) & (picked <= shown)):
        raise DataError("k must be from 0 to n")
    if picked.sum() in (0, shown.sum()):
        raise DataError("a beta-binomial needs responses of both kinds")
    if shown.max() < 2:
        raise DataError("a beta-binomial needs images with two responses or more")

    def cost(x: Array) -> tuple[float, Array]:
        a, b = _from_logs(x)
        value = special.betaln(picked + a, shown - picked + b) - special.betaln(a, b)
        shared = special.digamma(a + b) - special.digamma(shown + a + b)
        by_a = images @ (special.digamma(picked + a) - special.digamma(a) + shared)
        by_b = images @ (special.digamma(shown - picked + b) - special.digamma(b) + shared)
        slope = a * b / (a + b)
        return -float(images @ value), -np.array([(by_a - by_b) * slope, by_a * a + by_b * b])

    overall = picked @ images / (shown @ images)
    starts = [np.array([special.logit(overall), np.log(total)]) for total in (3.0, 100.0)]
    fits = [optimize.minimize(cost, start, jac=True, method="L-BFGS-B", bounds=BOUNDS, tol=1e-12) for start in starts]
    return _from_logs(min(fits, key=lambda fit: fit.fun).x)


def posterior_interval(k: ArrayLike, n: ArrayLike) -> tuple[Array, Array]:
    """(low, high) of the rate of each image at 95 %, given k of n of all of them.

    The rates are of a Beta distribution whose mean and intraclass correlation 1 / (a + b + 1) are any, all equally
    likely beforehand; the interval is that of the Beta with the posterior's mean and variance of an image's rate. With
    few views, images could differ much where they seem not to: then it covers more than 95 %, where they are alike.
    """
    pairs, index = np.unique(np.column_stack([k, n]).astype(float), axis=0, return_inverse=True)
    picked, shown = pairs[:, :1], pairs[:, 1:]
    images = np.bincount(index.ravel())
    overall = (picked.T @ images / (shown.T @ images)).item()
    mean = special.expit(special.logit(overall) + MEANS / np.sqrt(overall * (1 - overall) * images.sum()))
    total = 1 / ROOTS**2 - 1
    a, b = np.outer(mean, total).ravel(), np.outer(1 - mean, total).ravel()
    likelihood = images @ (special.betaln(picked + a, shown - picked + b) - special.betaln(a, b))
    weights = np.outer(mean * (1 - mean), ROOTS).ravel() * np.exp(likelihood - likelihood.max())
    weights /= weights.sum()
    given = (picked + a) / (shown + a + b)
    center = given @ weights
    variance = (given**2 + given * (1 - given) / (shown + a + b + 1)) @ weights - center**2
    size = center * (1 - center) / variance - 1
    low, high = stats.beta.interval(LEVEL, center * size, (1 - center) * size)
    return low[index.ravel()], high[index.ravel()]


def extremes(rates: pd.DataFrame, count: int = 2, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """The `count` lowest and highest rows of image_rates in each group, by shrunk rate; adds end and rank (1 = most).

    Never show their rates without n: with 25 views each, the best of 100 equal images looks
    20 points better than it is. Groups of fewer than 2 * count images give what they have, each image once.
    """
    require_list(by, "by")
    require(rates, [*by, *RESULTS], "image rates")
    if count < 1:
        raise DataError(f"count = {count}: must be at least 1")
    rows = []
    for _, part in groups(rates.dropna(subset=["shrunk"]), by):
        ordered = part.sort_values(["shrunk", "image_id"], kind="stable")
        low = ordered.head(min(count, (len(ordered) + 1) // 2))
        high = ordered.tail(min(count, len(ordered) // 2)).iloc[::-1]
        rows += [low.assign(end="lowest", rank=range(1, len(low) + 1))]
        rows += [high.assign(end="highest", rank=range(1, len(high) + 1))]
    if not rows:
        return rates.head(0).assign(end="", rank=0)
    return pd.concat(rows, ignore_index=True)


def _from_logs(x: Array) -> tuple[float, float]:
    total = np.exp(x[1])
    return float(total * special.expit(x[0])), float(total * special.expit(-x[0]))


def _shrunk(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of one group without its key."""
    rates = trials.groupby(["study", "image_id"])["picked_model"].agg(n="size", k="sum").reset_index()
    low, high = wilson(rates["k"], rates["n"])
    rates = rates.assign(fool_rate=rates["k"] / rates["n"], wilson_low=low, wilson_high=high)
    try:
        a, b = beta_binomial(rates["k"], rates["n"])
    except DataError as error:
        nothing = dict.fromkeys(["shrunk", "shrunk_low", "shrunk_high", "a", "b"], np.nan)
        return rates.assign(**nothing, note=f"not estimable: {error}")
    low, high = posterior_interval(rates["k"], rates["n"])
    note = "images differ no more than by chance" if a + b > 1e5 else ""
    shrunk = (rates["k"] + a) / (rates["n"] + a + b)
    rates = rates.assign(shrunk=shrunk, shrunk_low=low, shrunk_high=high, a=a, b=b, note=note)
    return rates.sort_values(["shrunk", "image_id", "study"], kind="stable", ignore_index=True)
