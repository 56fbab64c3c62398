"""Simulated studies in the format of responses.csv: subjects and images that differ, answers by chance."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, special

from analysis.errors import DataError
from analysis.tables import load_scores

Array = NDArray[np.float64]
START = pd.Timestamp("2026-01-01T09:00:00Z")
CATCH_PASSED = 0.97  # of attentive subjects
GUESSER_RT_MS = 150.0
RT_MS = 900.0


def simulate(
    rates: Mapping[str, float | Sequence[float]],
    *,
    subjects: int = 50,
    images: int = 100,
    trials: int = 50,
    subject_sd: float = 0.5,
    image_sd: float = 0.8,
    image_correlation: float = 1.0,
    groups: int | None = None,
    group_share: float = 0.5,
    exposures: Sequence[int] = (3000,),
    within: bool = False,
    task: int = 1,
    catch: int = 8,
    practice: int = 4,
    flagged: float = 0.0,
    guessers: float = 0.0,
    seed: int = 0,
    study: str = "simulated",
) -> pd.DataFrame:
    """Responses of a study whose true fool rates are known.

    rates: by model, over new subjects and new images; a sequence has one for each of `exposures` (ms). subjects: of
    each condition (model and exposure), or of the study where `within` is set, in which case a subject's `trials` are
    shared among the conditions. Every image is seen about equally often under each, never twice by a subject.
    subject_sd, image_sd: of normal deviations on the logit scale. image_correlation: of an image's deviations under two
    models; at 1, the default, they are the same. groups: of images (photographs, say), of equal sizes, named in the
    column `group`; group_share: of the images' variance, that between groups. catch, practice: trials of those kinds.
    flagged: share of the trials whose timing failed. guessers: share of the subjects who answer at random, fast, and
    fail catch trials. The same arguments give the same frame. DataError for what cannot be.
    """
    conditions = _conditions(rates, exposures)
    _check(conditions, subjects, images, trials, within)
    _check_spread(subject_sd=subject_sd, image_sd=image_sd)
    _check_shares(flagged=flagged, guessers=guessers, image_correlation=image_correlation, group_share=group_share)
    if groups is not None and not 1 <= groups <= images:
        raise DataError(f"{groups} groups of {images} images: must be from 1 to {images}")
    rng = np.random.default_rng(seed)
    image_effect = image_sd * _correlated(len(rates), images, image_correlation, rng)
    if groups is not None:
        group_effect = image_sd * _correlated(len(rates), groups, image_correlation, rng)
        of_group = group_effect[:, np.arange(images) % groups]
        image_effect = np.sqrt(1 - group_share) * image_effect + np.sqrt(group_share) * of_group
    people = subjects if within else subjects * len(conditions)
    seen = _allocate(people, images, trials, 1 if within else len(conditions), rng)
    subject = np.repeat(np.arange(people), trials)
    slot = np.tile(np.arange(trials), people)
    condition = _share_out(seen, images, len(conditions), rng) if within else subject // subjects
    center = np.array([_center(rate, float(np.hypot(subject_sd, image_sd))) for *_, rate in conditions])
    effect = rng.normal(0, subject_sd, people)[subject] + image_effect[condition // len(exposures), seen.ravel()]
    guesses = rng.permutation(people) < round(guessers * people)
    chance = np.where(guesses[subject], 0.5, special.expit(center[condition] + effect))
    tests = _trials(subject, slot, condition, chance, "test", [f"{i:04d}" for i in seen.ravel()], rng)
    extra = [
        _extra_trials(kind, number, people, np.arange(people) // subjects * (not within), guesses, trials, rng)
        for kind, number in (("practice", practice), ("catch", catch))
    ]
    table = pd.concat([tests, *extra], ignore_index=True)
    responses = _finished(table, conditions, guesses, study, task, flagged, rng)
    if groups is None:
        return responses
    names = {f"{i:04d}": f"g{i % groups:04d}" for i in range(images)}
    return responses.assign(group=responses["image_id"].map(names).fillna(""))


def _correlated(models: int, size: int, correlation: float, rng: np.random.Generator) -> Array:
    """Standard normal deviations [models, size], of which any two models' correlate."""
    shared = rng.normal(0, 1, size)
    if correlation == 1:
        return np.tile(shared, (models, 1))
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.normal(0, 1, (models, size))


def _conditions(rates: Mapping[str, float | Sequence[float]], exposures: Sequence[int]) -> list[tuple[str, int, float]]:
    """(model, exposure, rate) of every condition."""
    try:
        table = {model: np.broadcast_to(np.asarray(rate, float), len(exposures)) for model, rate in rates.items()}
    except ValueError:
        raise DataError(f"rates: give one for each model, or one for each of {len(exposures)} exposures") from None
    return [(m, e, float(r)) for m, values in table.items() for e, r in zip(exposures, values, strict=True)]


def _check(conditions: list[tuple[str, int, float]], subjects: int, images: int, trials: int, within: bool) -> None:
    if not conditions:
        raise DataError("a study needs a model and an exposure")
    for model, _, rate in conditions:
        if not 0 < rate < 1:
            raise DataError(f"rate of {model} = {rate}: must be above 0 and below 1")
    if min(subjects, trials) < 1:
        raise DataError(f"{subjects} subjects, {trials} trials: needs at least 1 of each")
    if trials > images:
        raise DataError(f"{trials} trials of {images} images: a subject would see an image twice")
    if within and trials < len(conditions):
        raise DataError(f"{trials} trials cannot be shared among {len(conditions)} conditions")


def _check_spread(**sds: float) -> None:
    for name, sd in sds.items():
        if not 0 <= sd < np.inf:
            raise DataError(f"{name} = {sd}: must be at least 0")


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise DataError(f"{name} = {share}: must be in [0, 1]")


def _center(rate: float, sd: float) -> float:
    """The logit around which normal deviations of this SD give the mean `rate`."""
    nodes, weights = special.roots_hermitenorm(64)
    weights = weights / weights.sum()
    return optimize.brentq(lambda x: float(weights @ special.expit(x + sd * nodes)) - rate, -30, 30)


def _allocate(people: int, images: int, trials: int, conditions: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The images of each subject [people, trials], in random order; the least seen of a condition come first."""
    rows = []
    for subject in range(people):
        if subject % (people // conditions) == 0:
            views = np.zeros(images)
        chosen = np.argsort(views + rng.random(images))[:trials]
        views[chosen] += 1
        rows.append(rng.permutation(chosen))
    return np.array(rows)


def _share_out(seen: NDArray[np.int64], images: int, conditions: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The condition of each trial of `seen` [people, trials], flat: as often each to a subject, and before an image."""
    views = np.zeros((images, conditions))
    rows = []
    for subject, shown in enumerate(seen):
        condition = (np.arange(len(shown)) + subject) % conditions
        cost = views[shown][:, condition]
        row = condition[optimize.linear_sum_assignment(cost**2 + rng.random(cost.shape))[1]]
        views[shown, row] += 1
        rows.append(row)
    return np.concatenate(rows)


def _trials(
    subject: NDArray[np.int64],
    slot: NDArray[np.int64],
    condition: NDArray[np.int64],
    chance: Array,
    kind: str,
    image_id: Sequence[str],
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Trials answered by chance, the real picture on the left in every other trial of a subject (shuffled slots)."""
    real_left = (rng.permuted(np.tile(slot[: slot.max() + 1], (len(slot) // (slot.max() + 1), 1)), axis=1) % 2).ravel()
    return pd.DataFrame(
        {
            "subject": subject,
            "condition": condition,
            "image_id": image_id,
            "kind": kind,
            "slot": slot,
            "real_side": np.where(real_left, "left", "right"),
            "picked_model": (rng.random(len(slot)) < chance).astype("int64"),
        }
    )


def _extra_trials(
    kind: str,
    number: int,
    people: int,
    condition: NDArray[np.int64],
    guesses: NDArray[np.bool_],
    trials: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Practice or catch trials of every subject; their slots follow those of the tests."""
    subject, slot = np.repeat(np.arange(people), number), np.tile(np.arange(number), people)
    if not number:
        return pd.DataFrame()
    fooled = np.where(guesses[subject], 0.5, 1 - CATCH_PASSED)
    table = _trials(subject, slot, condition[subject], fooled, kind, [f"{kind}{i}" for i in slot], rng)
    return table.assign(slot=table["slot"] + trials)


def _finished(
    table: pd.DataFrame,
    conditions: list[tuple[str, int, float]],
    guesses: NDArray[np.bool_],
    study: str,
    task: int,
    flagged: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """All columns of responses.csv, in its order, by subject and trial."""
    count = len(table)
    models, exposures, _ = zip(*conditions, strict=True)
    exposure = np.array(exposures)[table["condition"]]
    late = rng.random(count) < flagged
    pace = np.where(guesses, GUESSER_RT_MS, RT_MS) * np.exp(rng.normal(0, 0.25, len(guesses)))
    other = np.where(table["real_side"] == "left", "right", "left")
    result = pd.DataFrame(
        {
            "study": study,
            "task": task,
            "condition": [f"{models[c]}/{exposures[c]}" for c in table["condition"]],
            "model": np.array(models, object)[table["condition"]],
            "exposure_ms": exposure,
            "subject": [f"s{s:05d}" for s in table["subject"]],
            "image_id": table["image_id"],
            "kind": table["kind"],
            "trial_index": table["slot"],
            "real_side": table["real_side"],
            "choice_side": np.where(table["picked_model"] == 1, other, table["real_side"]),
            "picked_model": table["picked_model"],
            "rt_ms": np.round(pace[table["subject"]] * np.exp(rng.normal(0, 0.45, count)), 1),
            "exposure_actual_ms": np.round(exposure + rng.normal(6, 5, count) + late * rng.uniform(60, 400, count), 1),
            "timing_ok": (~late).astype("int64"),
            "finished": 1,
            "excluded_reason": "",
        }
    )
    result["received_at"] = START + pd.to_timedelta(np.arange(count), unit="s")
    return result.sort_values(["subject", "trial_index"], kind="stable", ignore_index=True)


def _named_rate(text: str) -> tuple[str, float]:
    name, _, rate = text.rpartition("=")
    try:
        return name, float(rate)
    except ValueError:
        raise DataError(f"--rate {text}: write it as MODEL=0.3") from None


@click.command(context_settings={"show_default": True})
@click.option("--rate", "rates", multiple=True, required=True, metavar="MODEL=RATE", help="True fool rates.")
@click.option("--scores", required=True, type=click.Path(path_type=Path), help="per_image.csv of the run judged.")
@click.option("--task", type=click.IntRange(1, 2), default=1)
@click.option("--subjects", default=50, help="Of each model.")
@click.option("--seed", default=0)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="responses.csv to write.")
def main(rates: Sequence[str], scores: Path, task: int, subjects: int, seed: int, out: Path) -> None:
    """Write answers of a study that nobody took part in, to see what its tables and figures will look like."""
    try:
        names = sorted(load_scores(scores)["image_id"].unique())
        true = dict(map(_named_rate, rates))
        half = -(-len(names) // 2)
        study = f"simulated_task{task}"
        responses = simulate(true, subjects=subjects, images=len(names), trials=half, task=task, seed=seed, study=study)
    except DataError as error:
        raise click.ClickException(str(error)) from None
    responses["image_id"] = responses["image_id"].replace({f"{i:04d}": name for i, name in enumerate(names)})
    responses.to_csv(out, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
