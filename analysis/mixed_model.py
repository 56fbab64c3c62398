"""A logistic mixed model of the answers with crossed subjects and images: logits of models and odds ratios.

    logit P(the model's output was picked) = beta_model + subject + image + subject:model + image:model (+ group …)

with normal effects of who answered and what was seen, each with a variance of its own. Effects of subject and model,
and of image and model, are there where subjects, or images, met several models; without them, contrasts would take
every image for equally hard under all. It answers for one subject and image what `fool_rate` answers on average.

Variances maximise the restricted likelihood by Laplace's method, fixed and random effects together at their mode:
Stiratelli, Laird and Ware 1984; Breslow and Clayton 1993; as glmmTMB with REML. Logits are then those at the mode of
Laplace's likelihood, as lme4's; where that of all effects is, odds ratios are 4 to 7 % too near 1.
statsmodels' variational fit of such a model is too sure of itself (study_protocol.md, section 4.4).
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg, optimize, sparse, special

from analysis.clusters import CLUSTER, IMAGE, SUBJECT, caution, codes, count, numbered, why_not_estimable
from analysis.comparisons import holm
from analysis.errors import DataError
from analysis.fool_rate import t_test

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
SDS = (0.01, 10.0)  # bounds of the standard deviations
START, DIFFERENCE = 0.5, 1e-3  # where their search starts, and its steps for derivatives
STEPS, TOLERANCE = 50, 1e-10  # of Newton's method
INTERVAL = ["se", "df", "ci_low", "ci_high"]
LEVELS = ["n", "logit", *INTERVAL, "rate", "rate_low", "rate_high", "note"]
CONTRASTS = ["log_odds_ratio", *INTERVAL, "p", "p_holm", "odds_ratio", "note"]


@dataclass(frozen=True)
class MixedModel:
    """logits [levels] with their covariance; sds: standard deviations of the random effects by name, on that scale."""

    factor: str
    levels: list[Any]
    n: list[int]
    logits: Array
    covariance: Array
    sds: dict[str, float]
    df: float
    note: str

    def rates(self) -> pd.DataFrame:
        """Of each level: n, logit of a subject and an image with effects 0, se, df, 95 % interval; rate, the mean over
        subjects and images that these effects and the sds imply, with its interval; note."""
        rows = []
        for i, level in enumerate(self.levels):
            logit, se = float(self.logits[i]), math.sqrt(self.covariance[i, i])
            test = t_test(logit, se, self.df)
            ends = {"ci_low": test["ci_low"], "ci_high": test["ci_high"]}
            mean = {name: self._mean(at) for name, at in zip(LEVELS[6:9], (logit, *ends.values()), strict=True)}
            row = {self.factor: level, "n": self.n[i], "logit": logit, "se": se, "df": self.df}
            rows.append(row | ends | mean | {"note": self.note})
        return pd.DataFrame(rows, columns=[self.factor, *LEVELS])

    def contrasts(self) -> pd.DataFrame:
        """Of each pair of levels: log_odds_ratio = logit of a - logit of b, se, df, 95 % interval, p, p_holm; note."""
        rows = []
        for a, b in itertools.combinations(range(len(self.levels)), 2):
            value = float(self.logits[a] - self.logits[b])
            se = math.sqrt(self.covariance[a, a] + self.covariance[b, b] - 2 * self.covariance[a, b])
            row = {f"{self.factor}_a": self.levels[a], f"{self.factor}_b": self.levels[b], "log_odds_ratio": value}
            row |= {"se": se, "df": self.df, "odds_ratio": math.exp(value), "note": self.note}
            rows.append(row | t_test(value, se, self.df))
        table = pd.DataFrame(rows, columns=[f"{self.factor}_a", f"{self.factor}_b", *CONTRASTS])
        return table.assign(p_holm=holm(table["p"].to_numpy(float)))

    def _mean(self, logit: float) -> float:
        """The mean rate over normal effects, by Gauss and Hermite."""
        nodes, weights = special.roots_hermitenorm(64)
        total = math.sqrt(sum(sd**2 for sd in self.sds.values()))
        return float(weights @ special.expit(logit + total * nodes) / weights.sum())


def mixed_model(responses: pd.DataFrame, factor: str = "model") -> MixedModel:
    """The model of the test trials of one task (and one viewing time), with a logit for each level of `factor`.

    Give it what `exclude` kept. Intervals have Student's t with the degrees of freedom that `fool_rates` has. DataError
    for several tasks or viewing times, where they are not the factor, for too few subjects or images, and for a level
    whose answers are all the same: its logit is infinite.
    """
    separate = [column for column in ("task", "exposure_ms") if column in responses and column != factor]
    trials = numbered(responses, [*separate, factor])
    for column in separate:
        if trials[column].nunique() > 1:
            raise DataError(f"responses belong to several {column} ({_listed(trials[column])}): choose one")
    levels = sorted(trials[factor].unique())
    parts = [count(trials[trials[factor] == level]) for level in levels]
    if not parts or (note := why_not_estimable(*parts)):
        raise DataError(f"mixed model: {note if parts else 'there are no responses'}")
    for level, cells in zip(levels, parts, strict=True):
        if cells.k.sum() in (0, cells.n.sum()):
            raise DataError(f"mixed model: all answers to {factor} {level} are the same, so that its logit is infinite")
    level = codes(trials[factor])
    logits, covariance, sds = _fit(level, random_effects(trials, level), trials["picked_model"].to_numpy(float))
    counts = [int(cells.n.sum()) for cells in parts]
    df = min(cells.df for cells in parts)
    return MixedModel(factor, levels, counts, logits, covariance, sds, df, caution(*parts))


def random_effects(trials: pd.DataFrame, level: Codes) -> dict[str, Codes]:
    """The codes of the random effects of each of the numbered trials, by name."""
    units = {"subject": trials[SUBJECT], "image": trials[IMAGE]}
    if trials[CLUSTER].nunique() < trials[IMAGE].nunique():
        units["group"] = trials[CLUSTER]
    found = {}
    for name, unit in units.items():
        found[name] = codes(unit)
        both = codes(unit, level)
        if both.max() > found[name].max():
            found[f"{name}:level"] = both
    return found


def _fit(level: Codes, effects: dict[str, Codes], y: Array) -> tuple[Array, Array, dict[str, float]]:
    """(logits, their covariance, sds)."""
    rows = np.arange(len(y))
    parts = [level, *effects.values()]
    sizes = [int(part.max()) + 1 for part in parts]
    columns = np.concatenate([part + start for part, start in zip(parts, np.cumsum([0, *sizes[:-1]]), strict=True)])
    design = sparse.csr_array((np.ones(len(columns)), (np.tile(rows, len(parts)), columns)), (len(y), sum(sizes)))
    fixed, at = sizes[0], np.zeros(sum(sizes))

    def precision(sds: Array) -> Array:
        return np.repeat(sds**-2.0, sizes[1:])

    def restricted(sds: Array) -> tuple[float, Array, Array]:
        nonlocal at
        value, at, factor = _mode(design, y, np.concatenate([np.zeros(fixed), precision(sds)]), at)
        return value - np.dot(sizes[1:], np.log(sds)) - np.log(np.diag(factor)).sum(), at, factor

    start, bounds = np.full(len(effects), START), [SDS] * len(effects)
    best = optimize.minimize(
        lambda sds: -restricted(sds)[0],
        start,
        method="L-BFGS-B",
        bounds=bounds,
        options={"eps": DIFFERENCE, "ftol": 1e-8},
    )
    _, mode, factor = restricted(best.x)
    covariance = linalg.cho_solve((factor, True), np.eye(len(mode))[:, :fixed])[:fixed]
    logits = _marginal_mode(mode, fixed, level, design[:, fixed:], y, precision(best.x))
    return logits, covariance, dict(zip(effects, best.x.tolist(), strict=True))


def _marginal_mode(
    mode: Array, fixed: int, level: Codes, design: sparse.csr_array, y: Array, precision: Array
) -> Array:
    """The fixed effects at the mode of Laplace's likelihood, in which the random ones are integrated out."""
    at = mode[fixed:]

    def minus_likelihood(logits: Array) -> float:
        nonlocal at
        value, at, factor = _mode(design, y, precision, at, logits[level])
        return np.log(np.diag(factor)).sum() - value

    return optimize.minimize(minus_likelihood, mode[:fixed], method="BFGS", options={"eps": DIFFERENCE, "gtol": 1e-3}).x


def _mode(
    design: sparse.csr_array, y: Array, precision: Array, start: Array, offset: Array | float = 0.0
) -> tuple[float, Array, Array]:
    """(penalised log likelihood, effects at its mode, Cholesky factor of the information there), by Newton's method."""

    def likelihood(effects: Array) -> float:
        eta = design @ effects + offset
        return float(y @ eta - np.logaddexp(0, eta).sum() - precision @ effects**2 / 2)

    effects, value = start, likelihood(start)
    for _ in range(STEPS):
        p = special.expit(design @ effects + offset)
        information = (design.T @ (design * (p * (1 - p))[:, None])).toarray() + np.diag(precision)
        factor = linalg.cholesky(information, lower=True)
        step = linalg.cho_solve((factor, True), design.T @ (y - p) - precision * effects)
        size = 1.0
        while (new := likelihood(effects + size * step)) < value and size > 1e-6:
            size /= 2
        gain, effects, value = new - value, effects + size * step, new
        if abs(gain) < TOLERANCE * len(y):
            break
    return value, effects, factor


def _listed(values: pd.Series) -> str:
    return ", ".join(str(value) for value in sorted(values.unique()))
