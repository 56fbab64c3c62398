"""Groups of methods that do not differ significantly, as letters: what statisticians call a compact letter display."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

import pandas as pd

from sr3eval.benchmark.summary import MEAN, SET, Kind, takes_part
from sr3eval.metrics import Convention
from sr3eval.significance import LEVEL, holm, sign_flip_p_of_many


def letters(scores: pd.DataFrame, convention: Convention) -> dict[str, str]:
    """{method: its letters} by one metric, on one data set; two methods share a letter where they do not differ at 5 %.

    Every two are compared over the same images or jackknife blocks: sign-flip tests over groups of images, t tests of
    metrics of sets, Holm-adjusted over all pairs. "a" is of the best. Methods that take no part have none; nor has any
    where some cannot be compared, or where groups are so few that no test could tell two methods apart. scores: rows of
    per_image.csv or set_scores.csv.
    """
    kind = MEAN if "image_id" in scores else SET
    comparable = kind.comparable(scores, convention.ceiling)
    parts = {str(name): part for name, part in comparable.groupby("method", sort=False) if takes_part(str(name))}
    values = {name: kind.summary(part)["value"] for name, part in parts.items()}
    known = [name for name, value in values.items() if math.isfinite(value)]
    order = sorted(known, key=lambda name: values[name], reverse=convention.higher_is_better)
    pairs = list(itertools.combinations(order, 2))
    found = [_p_value(kind, parts[one], parts[other]) for one, other in pairs]
    smallest = 2.0 ** (1 - comparable["group"].nunique()) if kind is MEAN else 0.0  # of a sign-flip test's p
    if any(map(math.isnan, found)) or smallest * len(pairs) >= 1 - LEVEL:
        return {}
    similar: dict[str, set[str]] = {name: set() for name in order}
    for (one, other), p in zip(pairs, holm(found), strict=True):
        if p >= 1 - LEVEL:
            similar[one].add(other)
            similar[other].add(one)
    return _named(order, similar)


def _p_value(kind: Kind, one: pd.DataFrame, other: pd.DataFrame) -> float:
    """Of "there is no difference"; NaN where the two cannot be compared."""
    if kind is SET:
        comparison = SET.paired(one, other)
        return comparison["p_value"] if comparison and comparison["smallest_p"] < 1 - LEVEL else math.nan
    both = one.merge(other[["image_id", "value"]], on="image_id", suffixes=("", "_other"))
    if both.empty:
        return math.nan
    differences = (both["value"] - both["value_other"]).to_numpy(float)
    return sign_flip_p_of_many(differences, both["group"].to_numpy(object))


def _named(order: Sequence[str], similar: Mapping[str, AbstractSet[str]]) -> dict[str, str]:
    """Each name's letters: one for every greatest group in which all are similar, in the order of the groups' best."""
    rank = {name: index for index, name in enumerate(order)}
    groups = sorted(sorted(rank[name] for name in clique) for clique in _cliques(set(), list(order), set(), similar))
    return {name: "".join(_letter(i) for i, group in enumerate(groups) if rank[name] in group) for name in order}


def _cliques(
    clique: set[str], candidates: list[str], excluded: set[str], similar: Mapping[str, AbstractSet[str]]
) -> Iterator[set[str]]:
    """The maximal cliques of a graph that hold `clique`, by the algorithm of Bron and Kerbosch (1973)."""
    if not candidates and not excluded:
        yield clique
    for index, name in enumerate(candidates):
        near = similar[name]
        rest = [other for other in candidates[index + 1 :] if other in near]
        yield from _cliques(clique | {name}, rest, excluded & near, similar)
        excluded = excluded | {name}


def _letter(index: int) -> str:
    """a … z, then a1 … z1, a2 …"""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")
