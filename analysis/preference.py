"""Which of two models people choose: win rates of pairs and of models, Bradley-Terry scores, ranks with their sets.

Ties count half in rates and by Davidson's model in scores: with strengths s and a tie parameter v, a is chosen over b
with probability s_a / d, and neither with 2 v sqrt(s_a s_b) / d, where d = s_a + s_b + 2 v sqrt(s_a s_b). Skipped pairs
are counted and left out. Sources: Bradley and Terry 1952; Davidson 1970; the fit is evalica's (Newman 2023), the
sandwich Cameron, Gelbach and Miller's, by subject and by image or group of images.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from analysis.clusters import (
    CLUSTER,
    IMAGE,
    SUBJECT,
    Cells,
    caution,
    codes,
    count,
    groups,
    labelled,
    variances,
    why_not_estimable,
)
from analysis.comparisons import holm
from analysis.errors import DataError
from analysis.fool_rate import CHANCE, NO_VARIATION, t_test
from analysis.proportions import LEVEL, ClusteredRates
from analysis.tables import of_tests, require

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
BY = ("task", "criterion")  # what is never pooled
A, B, SCORE = "model_a", "model_b", "_score"  # the pair, sorted by name, and what a got: 1, 0 or 1/2
TOLERANCE, LIMIT = 1e-12, 100_000  # of the fit
INTERVAL = ["se", "df", "ci_low", "ci_high"]
PAIR_RATES = ["n", "wins_a", "wins_b", "ties", "skipped", "win_rate", *INTERVAL, "p_50", "p_holm", "note"]
WIN_RATES = ["n", "wins", "losses", "ties", "opponents", "win_rate", *INTERVAL, "note"]
SCORES = ["n", "score", *INTERVAL, "rank", "rank_low", "rank_high", "tie_parameter", "subjects", "images", "note"]
DIFFERENCES = ["difference", *INTERVAL, "p", "p_holm", "simultaneous_low", "simultaneous_high", "note"]


def pair_rates(choices: pd.DataFrame, by: Sequence[str] = BY) -> pd.DataFrame:
    """How often one model of each pair was chosen over the other, one row a pair (names sorted), in each group.

    Give it what `exclude` kept. Columns: `by`, model_a, model_b; n decided choices and ties; wins_a, wins_b, ties,
    skipped; win_rate = (wins_a + ties / 2) / n with se, df, 95 % interval, two-way clustered by subject and image or
    group of images as fool rates are; p_50 of "as often as the other", and p_holm, adjusted over the group's pairs.
    """
    rows: list[dict[str, Any]] = []
    for key, part in groups(_pairs(choices, by), by):
        found = [key | _pair_rate(pair) for _, pair in part.groupby([A, B], sort=True, observed=True)]
        for row, p in zip(found, holm([row["p_50"] for row in found]), strict=True):
            rows.append(row | {"p_holm": p})
    return pd.DataFrame(rows, columns=[*by, A, B, *PAIR_RATES])


def win_matrix(rates: pd.DataFrame, value: str = "win_rate") -> pd.DataFrame:
    """Rows of `pair_rates`, of one group, as a square: how often the row's model was chosen over the column's.

    value: "win_rate" or "n". Models are sorted by their mean rate; nan where a pair was not shown.
    """
    require(rates, (A, B, "win_rate", "n"), "pair rates")
    if rates.duplicated([A, B]).any():
        raise DataError("pair rates belong to several tasks or criteria: choose one")
    names = sorted({*rates[A], *rates[B]})
    squares = {column: pd.DataFrame(np.nan, index=names, columns=names) for column in ("win_rate", "n")}
    for row in rates.itertuples():
        squares["win_rate"].loc[row.model_a, row.model_b] = row.win_rate
        squares["win_rate"].loc[row.model_b, row.model_a] = 1 - row.win_rate
        squares["n"].loc[row.model_a, row.model_b] = squares["n"].loc[row.model_b, row.model_a] = row.n
    order = squares["win_rate"].mean(axis=1).sort_values(ascending=False, kind="stable").index
    return squares[value].loc[order, order]


def win_rates(choices: pd.DataFrame, by: Sequence[str] = BY) -> pd.DataFrame:
    """How often each model was chosen over its opponents, which count equally however often they were met.

    Columns: `by`, model; n decided choices and ties, wins, losses, ties; opponents; win_rate, the mean of the model's
    rates in its pairs, with se, df, 95 % interval (as `pair_rates`); note. Rates of models that met different opponents
    do not compare; Bradley-Terry scores do.
    """
    rows = []
    for key, part in groups(_pairs(choices, by), by):
        decided = part.loc[part[SCORE].notna(), [SUBJECT, IMAGE, CLUSTER, A, B, SCORE]]
        for model in _models(part):
            rows.append(key | {"model": model} | _win_rate(decided, model))
    return pd.DataFrame(rows, columns=[*by, "model", *WIN_RATES])


def bradley_terry(choices: pd.DataFrame, by: Sequence[str] = BY) -> pd.DataFrame:
    """Bradley-Terry scores, one row a model, the best first in each group.

    Columns: `by`, model, n choices it was in; score, the log strength less the mean over models: a model that is 1
    above another is chosen e times as often; se, df, ci_low, ci_high, 95 % two-way clustered; rank, and rank_low to
    rank_high, sets that hold the true ranks of all models at once with 95 % (1 + how many models are certainly better,
    and that less the certainly worse; certain by Bonferroni's simultaneous intervals of differences; Mogstad et al.
    2024); tie_parameter v; note. nan with a note where the choices do not tie models to one another: some never lost,
    or were never compared with the others.
    """
    rows: list[dict[str, Any]] = []
    for key, part in groups(_pairs(choices, by), by):
        fit = _fit(part[part[SCORE].notna()])
        found = [key | row for row in (fit.rows() if isinstance(fit, Fit) else _not_fitted(part, fit))]
        rows += sorted(found, key=lambda row: -row.get("score", -math.inf))
    return pd.DataFrame(rows, columns=[*by, "model", *SCORES])


def score_differences(choices: pd.DataFrame, by: Sequence[str] = BY) -> pd.DataFrame:
    """Differences of Bradley-Terry scores between all pairs of models, compared or not, in each group.

    Columns: `by`, model_a, model_b; difference = score of a - score of b; se, df, the pair's own 95 % interval and p;
    p_holm over the group's pairs; simultaneous_low and _high, which cover all of them at once with 95 % (Bonferroni).
    """
    rows: list[dict[str, Any]] = []
    for key, part in groups(_pairs(choices, by), by):
        fit = _fit(part[part[SCORE].notna()])
        if isinstance(fit, Fit):
            rows += [key | row for row in fit.differences()]
            continue
        models = _models(part)
        rows += [key | {A: a, B: b, "note": fit} for a, b in itertools.combinations(models, 2)]
    return pd.DataFrame(rows, columns=[*by, A, B, *DIFFERENCES])


@dataclass(frozen=True)
class Fit:
    """Scores of models and how choices move them.

    influence: [cells, models], what the choices of a subject in a cluster of images add to the deviation of each score;
    n: the choices that each model was in.
    """

    models: list[str]
    scores: Array
    tie_parameter: float
    influence: Array
    cells: Cells
    n: Codes

    def variance(self, contrast: Array) -> float:
        """Of a contrast of scores [models]: two-way clustered, and at least that by subject and that by image."""
        found = variances(self.cells, self.influence @ contrast)
        return max(found.two_way, found.subject, found.group)

    def differences(self) -> list[dict[str, Any]]:
        """A row for each pair of models."""
        rows: list[dict[str, Any]] = []
        unit = np.eye(len(self.models))
        for a, b in itertools.combinations(range(len(self.models)), 2):
            se, value = math.sqrt(self.variance(unit[a] - unit[b])), float(self.scores[a] - self.scores[b])
            row = {A: self.models[a], B: self.models[b], "difference": value, "se": se, "df": self.cells.df}
            rows.append(row | t_test(value, se, self.cells.df) | {"note": caution(self.cells)})
        half = stats.t.ppf(1 - (1 - LEVEL) / 2 / len(rows), self.cells.df)
        for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
            reach = half * row["se"]
            row |= {"p_holm": p, "simultaneous_low": row["difference"] - reach}
            row |= {"simultaneous_high": row["difference"] + reach}
        return rows

    def rows(self) -> list[dict[str, Any]]:
        """A row for each model."""
        low, high = self._ranks()
        order = np.argsort(-self.scores, kind="stable")
        rank = np.empty(len(order), int)
        rank[order] = np.arange(1, len(order) + 1)
        centred = np.eye(len(self.models)) - 1 / len(self.models)
        rows = []
        for i, model in enumerate(self.models):
            score, se = float(self.scores[i]), math.sqrt(self.variance(centred[i]))
            test = t_test(score, se, self.cells.df)
            row = {"model": model, "n": int(self.n[i]), "score": score, "se": se, "df": self.cells.df}
            row |= {"ci_low": test["ci_low"], "ci_high": test["ci_high"], "rank": int(rank[i])}
            row |= {"rank_low": low[i], "rank_high": high[i], "tie_parameter": self.tie_parameter}
            row |= {"subjects": self.cells.subjects, "images": self.cells.images}
            rows.append(row | {"note": caution(self.cells)})
        return rows

    def _ranks(self) -> tuple[list[int], list[int]]:
        place = {model: i for i, model in enumerate(self.models)}
        better, worse = [0] * len(place), [0] * len(place)
        for row in self.differences():
            a, b = place[row[A]], place[row[B]]
            if row["simultaneous_low"] > 0:
                better[b], worse[a] = better[b] + 1, worse[a] + 1
            elif row["simultaneous_high"] < 0:
                better[a], worse[b] = better[a] + 1, worse[b] + 1
        return [1 + ahead for ahead in better], [len(place) - behind for behind in worse]


def _pairs(choices: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Test choices with SUBJECT, IMAGE, CLUSTER, A, B and SCORE, which is nan for skipped pairs."""
    require(choices, ("model_left", "model_right", "choice_side"), "choices")
    trials = labelled(of_tests(choices, by, "choices"))
    code, models = pd.factorize(pd.concat([trials["model_left"], trials["model_right"]]), sort=True)
    left, right = np.split(code, 2)
    swapped = left > right
    got = trials["choice_side"].map({"left": 1.0, "right": 0.0, "tie": 0.5, "skip": np.nan}).to_numpy(float)
    pairs = {A: np.minimum(left, right), B: np.maximum(left, right)}
    names = {name: pd.Categorical.from_codes(which, list(models)) for name, which in pairs.items()}
    return trials.assign(**names, **{SCORE: np.where(swapped, 1 - got, got)})


def _models(pairs: pd.DataFrame) -> list[str]:
    return sorted({*pairs[A].unique(), *pairs[B].unique()})


def _cells(decided: pd.DataFrame) -> Cells:
    return count(decided.assign(picked_model=decided[SCORE]))


def _counts(decided: pd.DataFrame) -> dict[str, int]:
    got = decided[SCORE]
    return {"wins_a": int((got == 1).sum()), "wins_b": int((got == 0).sum()), "ties": int((got == CHANCE).sum())}


def _pair_rate(pair: pd.DataFrame) -> dict[str, Any]:
    decided = pair[pair[SCORE].notna()]
    row = {A: pair[A].iloc[0], B: pair[B].iloc[0], "n": len(decided), "skipped": len(pair) - len(decided)}
    cells = _cells(decided)
    rate = float(decided[SCORE].mean()) if len(decided) else math.nan
    return row | _counts(decided) | _interval(rate, cells, (cells.k - rate * cells.n) / len(decided))


def _win_rate(decided: pd.DataFrame, model: str) -> dict[str, Any]:
    own = decided[(decided[A] == model) | (decided[B] == model)]
    first = (own[A] == model).to_numpy()
    got = np.where(first, own[SCORE], 1 - own[SCORE])
    opponent = codes(own[B].where(first, own[A]))
    cells = count(own.assign(picked_model=got), level=opponent)
    met = np.bincount(opponent)
    rates = np.bincount(opponent, weights=got) / met
    row = {"n": len(own), "wins": int((got == 1).sum()), "losses": int((got == 0).sum())}
    row |= {"ties": int((got == CHANCE).sum()), "opponents": len(met)}
    influence = (cells.k - rates[cells.level] * cells.n) / met[cells.level] / len(met)
    estimate = _interval(float(rates.mean()) if len(own) else math.nan, cells, influence)
    return row | {key: value for key, value in estimate.items() if key != "p_50"}


def _interval(rate: float, cells: Cells, influence: Array) -> dict[str, Any]:
    """win_rate, se, df, interval, p of 50 % and note, as fool_rate.fool_rates has them."""
    row: dict[str, Any] = {"win_rate": rate, "p_50": math.nan}
    if note := why_not_estimable(cells):
        return row | {"note": note}
    n = float(cells.n.sum())
    found = variances(cells, influence)
    variance = max(found.two_way, found.subject, found.group)
    if rate in (0, 1):
        return row | _tested(rate, n, 1.0, cells.df) | {"note": "; ".join(filter(None, [NO_VARIATION, caution(cells)]))}
    if variance < np.finfo(float).eps / n:
        return row | {"note": "not estimable: no variation"}
    tests = _tested(rate, n, variance / (rate * (1 - rate) / n), cells.df)
    return row | tests | {"se": math.sqrt(variance), "note": caution(cells)}


def _tested(rate: float, n: float, design_effect: float, df: float) -> dict[str, float]:
    rates = ClusteredRates(*(np.array(value) for value in (rate, n, design_effect, df)))
    low, high = (float(end) for end in rates.interval())
    return {"df": df, "ci_low": low, "ci_high": high, "p_50": float(rates.p_two_sided(CHANCE))}


def _fit(decided: pd.DataFrame) -> Fit | str:
    """The scores, or why there are none."""
    cells = _cells(decided)
    if note := why_not_estimable(cells):
        return note
    models = _models(decided)
    a, b = (pd.Categorical(decided[side], models).codes.astype(np.int64) for side in (A, B))
    got = decided[SCORE].to_numpy()
    if note := _why_not_tied(models, a, b, got):
        return note
    scores, tie = fit(a, b, got, len(models))
    _, cell = np.unique(decided[[SUBJECT, CLUSTER]].to_numpy(), axis=0, return_inverse=True)  # sorted as Cells are
    influence = np.zeros((len(cells.n), len(models)))
    np.add.at(influence, cell, _influence(scores, tie, a, b, got))
    return Fit(models, scores, tie, influence, cells, np.bincount(np.concatenate([a, b]), minlength=len(models)))


def fit(a: Codes, b: Codes, got: Array, models: int, weights: Array | None = None) -> tuple[Array, float]:
    """(scores [models] of mean 0, tie parameter) of greatest likelihood; got: 1, 0 or 1/2 for the model a.

    weights: how often each of these choices was made; without, once.
    """
    from evalica import Winner, newman

    winner = [Winner.X if g == 1 else Winner.Y if g == 0 else Winner.Draw for g in got]
    index = pd.RangeIndex(models)
    counts = None if weights is None else weights.tolist()
    found = newman(a.tolist(), b.tolist(), winner, index=index, weights=counts, tolerance=TOLERANCE, limit=LIMIT)
    scores = np.log(found.scores.loc[index].to_numpy())
    return scores - scores.mean(), float(found.v)


def _why_not_tied(models: Sequence[str], a: Codes, b: Codes, got: Array) -> str:
    """Why no scores are greatest: Ford 1957, every model must be reached from every other by wins or ties."""
    won, lost = np.concatenate([a[got > 0], b[got < 1]]), np.concatenate([b[got > 0], a[got < 1]])
    beaten = coo_array((np.ones(len(won)), (won, lost)), shape=(len(models),) * 2)
    parts, part = connected_components(beaten, connection="strong")
    if parts == 1:
        return ""
    apart, whole = connected_components(beaten, connection="weak")
    if apart > 1:
        return f"not estimable: {_named(models, whole == 0)} was never compared with {_named(models, whole != 0)}"
    entered = {part[loser] for winner, loser in zip(won, lost, strict=True) if part[winner] != part[loser]}
    best = next(p for p in range(parts) if p not in entered)
    return f"not estimable: {_named(models, part == best)} never lost to {_named(models, part != best)}"


def _named(models: Sequence[str], chosen: NDArray[np.bool_]) -> str:
    return ", ".join(model for model, is_one in zip(models, chosen, strict=True) if is_one)


def _influence(scores: Array, tie: float, a: Codes, b: Codes, got: Array) -> Array:
    """[choices, models]: the inverse of the information times each choice's gradient, with the tie parameter known by
    the same choices. The information is the observed one, H = -sum of second derivatives.
    """
    rows, models = np.arange(len(a)), len(scores)
    strength = np.stack([scores[a], scores[b], (scores[a] + scores[b]) / 2 + _log(2 * tie)])
    p = np.exp(strength - strength.max(axis=0))
    p /= p.sum(axis=0)  # of a, b, and a tie
    # A choice's log probability is x - log(sum exp(x)), x the utility of what happened: gradients of the utilities are
    # e_a, e_b and (e_a + e_b) / 2, e_v, the last parameter being the log of v.
    design = np.zeros((3, len(a), models + (tie > 0)))
    design[0, rows, a] = design[1, rows, b] = 1
    design[2, rows, a] = design[2, rows, b] = 0.5
    if tie > 0:
        design[2, :, models] = 1
    mean = np.einsum("kn,knj->nj", p, design)
    happened = np.where(got == 1, 0, np.where(got == 0, 1, 2))
    gradient = design[happened, rows] - mean
    information = np.einsum("kn,kni,knj->ij", p, design, design) - mean.T @ mean
    return (gradient @ inverse(information))[:, :models]


def inverse(information: Array) -> Array:
    """The generalised inverse: what all scores share is not estimated."""
    return np.asarray(np.linalg.pinv(information, rcond=1e-10, hermitian=True), np.float64)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _not_fitted(part: pd.DataFrame, note: str) -> list[dict[str, Any]]:
    decided = part[part[SCORE].notna()]
    n = pd.concat([decided[A], decided[B]]).value_counts()
    return [{"model": model, "n": int(n.get(model, 0)), "note": note} for model in _models(part)]
