"""How many subjects and images a study needs: standard errors, power and detectable differences of a design.

python -m analysis.power --subjects 50 --subjects 100 --images 100 --trials 50
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import click
import numpy as np
import pandas as pd
from scipy import integrate, optimize, stats

from analysis.clusters import IMAGE, SUBJECT, count, groups, numbered, variances, why_not_estimable
from analysis.errors import DataError
from analysis.fool_rate import CONDITION, MARGIN

Comparison = Literal["chance", "between", "within"]
ALPHA = 0.05
TARGET = 0.8


@dataclass(frozen=True)
class Spread:
    """Standard deviations on the scale of rates; the defaults are those of the worked example of tests/analysis.

    subject, image: between the true rates of subjects and of images. response: of a single response, all causes
    together (0.5 at a rate of 50 %). subject_correlation, image_correlation: between a subject's, or an image's,
    deviations under two models. At 1, the default, they cancel in the difference of two models that share subjects, or
    images; models that fail on different images have less, and need more images. `spread_of` estimates all of them.
    """

    subject: float = 0.103
    image: float = 0.155
    response: float = 0.5
    subject_correlation: float = 1.0
    image_correlation: float = 1.0

    def __post_init__(self) -> None:
        if not (self.subject >= 0 and self.image >= 0 and self.subject**2 + self.image**2 < self.response**2):
            raise DataError(f"{self}: subject and image must be at least 0, their squares together below response's")
        if not max(abs(self.subject_correlation), abs(self.image_correlation)) <= 1:
            raise DataError(f"{self}: correlations must be from -1 to 1")


def standard_error(
    subjects: int, images: int, trials: int, comparison: Comparison = "chance", spread: Spread | None = None
) -> float:
    """Of a fool rate, or of the difference of two, under a balanced design; each model has subjects * trials responses.

    comparison: "chance", one rate against 50 %; "between", two models with subjects of their own and the same images;
    "within", two models with the same subjects and images.
    """
    s = spread or Spread()
    by_subject, by_image = s.subject**2 / subjects, s.image**2 / images
    responses = subjects * trials
    if comparison == "chance":
        return float(np.sqrt(by_subject + by_image + s.response**2 / responses))
    images_part = 2 * (1 - s.image_correlation) * by_image
    if comparison == "between":
        return float(np.sqrt(2 * by_subject + images_part + 2 * (s.response**2 - s.image**2) / responses))
    rest = 2 * (s.response**2 - s.subject**2 - s.image**2) / responses
    return float(np.sqrt(2 * (1 - s.subject_correlation) * by_subject + images_part + rest))


def power(
    subjects: int | Sequence[int],
    images: int | Sequence[int],
    trials: int | Sequence[int],
    effect: float = 0.05,
    comparison: Comparison = "chance",
    spread: Spread | None = None,
    margin: float = MARGIN,
) -> pd.DataFrame:
    """What every combination of subjects, images and trials (test trials of a subject for a model) can show.

    Columns: subjects (of each model), images, trials, responses (for each model), views_per_image, se; power, the
    chance that a two-sided t test at 5 % with min(subjects, images) - 1 degrees of freedom finds a true difference of
    `effect` from 50 % or between two models; detectable, the difference that it finds with 80 %; power_equivalence, the
    chance that TOST with `margin` shows equivalence where there is no difference at all. Numbers of ideal subjects:
    add those who will be excluded. Images are independent: of crops, count photographs. spread: how much subjects and
    images differ, and how alike they do under two models (by default wholly: Spread.image_correlation = 1). DataError
    for designs that cannot be: no image is shown twice to one subject.
    """
    if comparison not in get_args(Comparison):
        raise DataError(f'comparison "{comparison}": must be one of {", ".join(get_args(Comparison))}')
    if not np.isfinite([effect, margin]).all():
        raise DataError(f"effect = {effect}, margin = {margin}: must be numbers")
    rows = []
    for s, i, t in itertools.product(*(np.atleast_1d(values).tolist() for values in (subjects, images, trials))):
        _check(s, i, t)
        rows.append(_row(s, i, t, standard_error(s, i, t, comparison, spread), effect, margin))
    return pd.DataFrame(rows)


def spread_of(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """Spread as estimated from a pilot study, one row a group, with a note.

    Columns: `by`, subject, image, response, subject_correlation, image_correlation, note. By moments: the variance
    between subjects is subjects * (V_s - V_0), that between images likewise, 0 where negative. Correlations are with
    the other models of the group, and nan where these share no subjects, or images, or do not differ between them.
    """
    trials = numbered(responses, by)
    rows = []
    for key, part in groups(trials, by):
        cells = count(part, cluster=IMAGE)
        note = why_not_estimable(cells)
        if note:
            rows.append(key | {"note": note})
            continue
        rate, n = cells.k.sum() / cells.n.sum(), cells.n.sum()
        v = variances(cells, (cells.k - rate * cells.n) / n, correct_cells=False)
        subject, image = (
            np.sqrt(max(size * (variance - v.cell), 0.0))
            for size, variance in ((cells.subjects, v.subject), (cells.images, v.group))
        )
        rows.append(key | {"subject": subject, "image": image, "response": np.sqrt(rate * (1 - rate)), "note": ""})
    columns = [*by, "subject", "image", "response", "subject_correlation", "image_correlation", "note"]
    spreads = pd.DataFrame(rows, columns=columns)
    if "model" in by:
        _correlate(spreads, trials, [column for column in by if column != "model"])
    return spreads


def _correlate(spreads: pd.DataFrame, trials: pd.DataFrame, family: Sequence[str]) -> None:
    """Fill in the correlations of every model with the others of its family."""
    for _, part in groups(spreads, family):
        models = list(part["model"])
        own = trials.merge(part[[*family, "model"]], on=[*family, "model"])
        for name, unit in (("subject", SUBJECT), ("image", IMAGE)):
            rates = own.pivot_table(index=unit, columns="model", values="picked_model", aggfunc="mean")
            sd = part[name].to_numpy(float)
            shared = rates[models].cov(min_periods=2).to_numpy()
            product = np.where(np.isnan(shared) | np.eye(len(models), dtype=bool), np.nan, np.outer(sd, sd))
            total, possible = np.nansum(np.where(np.isnan(product), np.nan, shared), axis=1), np.nansum(product, axis=1)
            correlation = np.divide(total, possible, out=np.full(len(models), np.nan), where=possible > 0)
            spreads.loc[part.index, f"{name}_correlation"] = np.clip(correlation, -1, 1)


def _check(subjects: int, images: int, trials: int) -> None:
    if min(subjects, images) < 2 or trials < 1:
        raise DataError(f"{subjects} subjects, {images} images, {trials} trials: needs at least 2, 2 and 1")
    if trials > images:
        raise DataError(f"{trials} trials of {images} images: a subject would see an image twice")


def _row(subjects: int, images: int, trials: int, se: float, effect: float, margin: float) -> dict[str, float]:
    df = min(subjects, images) - 1
    return {
        "subjects": subjects,
        "images": images,
        "trials": trials,
        "responses": subjects * trials,
        "views_per_image": subjects * trials / images,
        "se": se,
        "power": _power(effect / se, df),
        "detectable": se * optimize.brentq(lambda ncp: _power(ncp, df) - TARGET, 0.0, 30.0),
        "power_equivalence": _power_equivalence(margin / se, df),
    }


def _power(ncp: float, df: int) -> float:
    """Of the two-sided t test where the difference is ncp standard errors."""
    critical = stats.t.ppf(1 - ALPHA / 2, df)
    wrong_side = np.nan_to_num(stats.nct.cdf(-critical, df, abs(ncp)))  # scipy gives nan where it is practically 0
    return float(stats.nct.sf(critical, df, abs(ncp)) + wrong_side)


def _power_equivalence(margin: float, df: int) -> float:
    """Of TOST where there is no difference, the margin in standard errors: Phillips 1990, over the estimated error."""
    critical = stats.t.ppf(1 - ALPHA, df)
    error = stats.chi(df, scale=df**-0.5)  # as a multiple of the true one
    shown = integrate.quad(
        lambda s: (2 * stats.norm.cdf(margin - critical * s) - 1) * error.pdf(s), 0, margin / critical, limit=200
    )
    return float(shown[0])


@click.command(context_settings={"show_default": True})
@click.option("--subjects", multiple=True, type=int, default=[50], help="Of each model; may be given several times.")
@click.option("--images", multiple=True, type=int, default=[100], help="May be given several times.")
@click.option("--trials", multiple=True, type=int, default=[50], help="Test trials of a subject; several times.")
@click.option("--effect", default=0.05, help="True difference of rates that is to be found.")
@click.option("--comparison", type=click.Choice(get_args(Comparison)), default="chance")
@click.option("--image-correlation", default=1.0, help="Of image effects under two models; 1: equally hard under both.")
def main(
    subjects: list[int],
    images: list[int],
    trials: list[int],
    effect: float,
    comparison: Comparison,
    image_correlation: float,
) -> None:
    """Print what designs can show: standard error, power, difference detectable with 80 % power."""
    try:
        spread = Spread(image_correlation=image_correlation)
        table = power(subjects, images, trials, effect, comparison, spread)
    except DataError as error:
        raise click.ClickException(str(error)) from None
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))


if __name__ == "__main__":
    main()
