"""Means over several outputs of each image, a method's seeds or samples: how much of their variance is which.

A score of draw d of image i is mean + image_i + draw_id; a fool rate has people and single answers besides. Noise of
one image has nothing to do with that of another, so draws are nested in images. Networks trained several times are
methods of their own.
"""

import math
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.clusters import FEW, IMAGE, SAMPLE, SUBJECT, codes, count, few_photographs, groups, numbered, variances
from analysis.fool_rate import CONDITION, fool_rates, t_test
from analysis.proportions import LEVEL
from analysis.tables import require

Array = NDArray[np.float64]
SCORED = ("task", "dataset", "method", "metric")
SCORES = [
    *("images", "groups", "draws", "mean", "se", "df", "ci_low", "ci_high"),
    *("image_sd", "seed_sd", "seed_share", "image_se", "seed_se", "note"),
]
PARTS = ["samples", "image_sd", "seed_sd", "seed_share", "subject_se", "image_se", "seed_se", "answer_se"]
ONE_DRAW = "one draw of each image: its noise counts as the image's"


def score_parts(draws: pd.DataFrame) -> pd.DataFrame:
    """Mean scores over images and the parts of their variance, a row a task, data set, method and metric.

    draws: draw_scores.csv of a run as `tables.load_scores` gives it. Columns: the four; images, groups of these, draws
    (the fewest of an image); mean of the images' means; se, clustered by groups of images, with df and the 95 %
    interval of Student's t, for new images and new draws, as many as here; image_sd and seed_sd, standard deviations
    between images and within them, by moments; seed_share = seed_sd² / (image_sd² + seed_sd²); image_se and seed_se,
    whose squares add up to se²; note. Images with a score that is not finite are left out.
    """
    require(draws, (*SCORED, "image_id", "group", "value"), "draws")
    rows = [key | _of_scores(part) for key, part in groups(draws, SCORED)]
    return pd.DataFrame(rows, columns=[*SCORED, *SCORES])


def _of_scores(draws: pd.DataFrame) -> dict[str, object]:
    infinite = draws["image_id"].isin(draws.loc[~np.isfinite(draws["value"]), "image_id"])
    scored = draws[~infinite].assign(
        group=lambda t: t["group"].fillna("").where(t["group"] != "", "\0" + t["image_id"])
    )
    images = scored.groupby(["group", "image_id"])["value"].agg(["mean", "var", "size"]).reset_index()
    sums, counts = (images.groupby("group")["mean"].agg(how).to_numpy(float) for how in ("sum", "size"))
    row: dict[str, object] = {"images": len(images), "groups": len(sums), "draws": images["size"].min()}
    left_out = int(draws.loc[infinite, "image_id"].nunique())
    notes = [f"{left_out} images left out, without a finite score"] * bool(left_out)
    if len(sums) < 2:
        return row | {"note": "; ".join(["not estimable: one photograph or none", *notes])}
    mean, shares = float(images["mean"].mean()), counts / counts.sum()
    variance = float(np.sum((sums - counts * mean) ** 2)) / len(images) ** 2 * len(sums) / (len(sums) - 1)
    row |= {"mean": mean, "se": math.sqrt(variance), "df": 1 / float(shares @ shares) - 1}
    row |= t_test(mean, math.sqrt(variance), 1 / float(shares @ shares) - 1)
    notes += [few_photographs(len(sums))] * (len(sums) < min(FEW, len(images)))
    several = images[images["size"] > 1]
    if several.empty:
        return row | {"note": "; ".join([ONE_DRAW, *notes])}
    noise = float(np.average(several["var"], weights=several["size"] - 1))
    of_means = noise * float((1 / images["size"]).mean())
    between, seed = max(float(images["mean"].var()) - of_means, 0.0), min(of_means / len(images), variance)
    row |= {"image_sd": math.sqrt(between), "seed_sd": math.sqrt(noise), "note": "; ".join(notes)}
    row |= {"seed_share": noise / (noise + between) if noise + between else math.nan}
    return row | {"image_se": math.sqrt(variance - seed), "seed_se": math.sqrt(seed)}


def of_samples(responses: pd.DataFrame, models: Collection[str] | None = None) -> pd.DataFrame:
    """Responses to samples that were shown as models of their own, "sr3", "sr3@2" …: as model sr3, samples 1, 2 …

    models: those that there are, so that names among them stay as they are, and so do "x@2" where there is no "x".
    """
    named = responses["model"].str.extract(r"^(?P<model>.*?)(?:@(?P<sample>\d+))?$")
    if models is not None:
        given = responses["model"].isin(models) | ~named["model"].isin(models)
        named = named.assign(model=named["model"].mask(given, responses["model"]), sample=named["sample"].mask(given))
    return responses.assign(model=named["model"], **{SAMPLE: named["sample"].fillna("1").astype(int)})


def fool_rate_parts(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """`fool_rates` of methods that people saw several samples of, with the parts of their variance.

    responses: with the column `sample`, see `of_samples`. Columns: those of `fool_rates`, whose interval is for new
    subjects, new images and new samples of these; samples, the fewest of an image; image_sd and seed_sd, standard
    deviations of true rates between images and between the samples of one, by moments, 0 where negative; seed_share =
    seed_sd² / (image_sd² + seed_sd²); subject_se, image_se, seed_se and answer_se, what of the se each makes: squares
    add up to se², but where one would be negative, or se² has its floor.
    """
    require(responses, [SAMPLE], "responses")
    trials, rates = numbered(responses, [*by, SAMPLE]), fool_rates(responses, by)
    parts = [_of_answers(part, float(se)) for (_, part), se in zip(groups(trials, by), rates["se"], strict=True)]
    table = pd.concat([rates, pd.DataFrame(parts, columns=PARTS)], axis=1)
    note = table["note"] + np.where(table["note"] == "", "", "; ") + ONE_DRAW
    return table.assign(note=table["note"].where(table["samples"] > 1, note))


def seed_variance(trials: pd.DataFrame) -> float:
    """Of the fool rate of numbered trials, by the noise of their samples alone; 0 where that is not seen."""
    shown = np.bincount(codes(trials[IMAGE], trials[SAMPLE])) / len(trials)
    return float(np.nan_to_num(max(_by_moments(trials)[1], 0.0))) * float(shown @ shown)


def within_noise(difference: float, *parts: pd.DataFrame) -> bool:
    """Whether the samples of the numbered trials of two models would, with other noise, differ as much (95 %)."""
    noise = math.sqrt(sum(map(seed_variance, parts)))
    return bool(abs(difference) < stats.norm.ppf((1 + LEVEL) / 2) * noise)


def _of_answers(trials: pd.DataFrame, se: float) -> dict[str, float]:
    """Those of one rate with its standard error."""
    row = {"samples": trials.groupby(IMAGE)[SAMPLE].nunique().min()}
    if not se > 0:
        return row
    cells = count(trials)
    v = variances(cells, (cells.k - cells.k.sum() / cells.n.sum() * cells.n) / cells.n.sum())
    row |= {"subject_se": math.sqrt(max(v.subject - v.cell, 0.0)), "answer_se": math.sqrt(v.cell)}
    image, noise = _by_moments(trials)
    if math.isnan(noise):
        return row
    image, noise = max(image + se**2, 0.0), max(noise, 0.0)  # residuals are from the rate, which has that error
    seen = max(v.group - v.cell, 0.0)
    seed = seed_variance(trials)
    row |= {"image_sd": math.sqrt(image), "seed_sd": math.sqrt(noise)}
    row |= {"seed_share": noise / (noise + image) if noise + image else math.nan}
    return row | {"image_se": math.sqrt(max(seen - seed, 0.0)), "seed_se": math.sqrt(seed)}


def _by_moments(trials: pd.DataFrame) -> tuple[float, float]:
    """Variances of true rates between images and between samples of one: mean products of two people's residuals.

    The first is of an image's two samples, less the variance of the mean; nan where there are no two.
    """
    residual = trials["picked_model"].to_numpy(float) - trials["picked_model"].mean()

    def products(*columns: str) -> Array:
        """[sum, number] of products of two answers that agree in these columns, squares among them."""
        same = codes(*(trials[column] for column in columns))
        sums, counts = np.bincount(same, weights=residual), np.bincount(same).astype(float)
        return np.array([sums @ sums, counts @ counts])

    one = products(IMAGE, SAMPLE) - products(IMAGE, SAMPLE, SUBJECT)
    two = products(IMAGE) - products(IMAGE, SUBJECT) - one
    image, both = (float(total / number) if number else math.nan for total, number in (two, one))
    return image, both - image
