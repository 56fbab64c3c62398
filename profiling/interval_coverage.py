"""How often intervals cover the truth and tests find what is not there, over simulated studies.

    python profiling/interval_coverage.py

Each line is a design with the shares that were measured. --studies sets the number of studies (10,000 bring the
standard error of 95 % to 0.2 points), --only chooses lines by their first word.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import click
import numpy as np
import pandas as pd
from known_judges import (
    QUIET,
    SUBJECT_SD,
    THRESHOLD_MS,
    alphas,
    image_ceilings,
    images_covered,
    model_ceilings,
    scored_studies,
    timed_thresholds,
    true_alpha,
)
from scipy import special, stats

from analysis.agreement import over_images
from analysis.comparisons import compare
from analysis.fool_rate import equivalence, fool_rates, pooled, subject_summary
from analysis.mixed_model import mixed_model
from analysis.power import Spread, power
from analysis.seeds import fool_rate_parts
from analysis.signal_detection import side_bias
from analysis.simulation import _center, simulate

IMAGE_SD = 0.8  # logits, as SUBJECT_SD
SPREAD = Spread(subject=0.100, image=0.163)  # the same on the scale of rates, near 50 %
DESIGNS = ((10, 20, 10), (20, 50, 20), (25, 100, 10), (50, 100, 50))  # subjects, images, trials
CHUNK = 250  # studies in one frame


def redrawn(
    plan: pd.DataFrame,
    rates: dict[str, float],
    studies: int,
    rng: np.random.Generator,
    correlation: float = 1.0,
    group_share: float = 0.5,
    image_sd: float = IMAGE_SD,
    seed_share: float = 0.0,
) -> pd.DataFrame:
    """The trials of a plan, answered in each study by new people before new images; true rates are known.

    seed_share: of the variance of what is seen, that between the samples of an image.
    """
    columns = [c for c in ("model", "subject", "image_id", "kind", "group", "real_side", "sample") if c in plan]
    model, subject, image = (pd.factorize(plan[column])[0] for column in ("model", "subject", "image_id"))
    names = list(dict.fromkeys(plan["model"]))
    center = np.array([_center(rates[name], float(np.hypot(SUBJECT_SD, image_sd))) for name in names])

    def effects(codes: np.ndarray) -> np.ndarray:
        """Standard normal effects [studies, trials] of what the codes number, correlated between the models."""
        size = codes.max() + 1
        own = rng.normal(size=(studies, len(names), size))
        shared = rng.normal(size=(studies, 1, size))
        return (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)[:, model, codes]

    seen = effects(image)
    if "group" in plan:
        seen = np.sqrt(1 - group_share) * seen + np.sqrt(group_share) * effects(pd.factorize(plan["group"])[0])
    if "sample" in plan:
        draw = pd.factorize(image * (plan["sample"].max() + 1) + plan["sample"])[0]
        seen = np.sqrt(1 - seed_share) * seen + np.sqrt(seed_share) * effects(draw)
    people = rng.normal(0, SUBJECT_SD, (studies, subject.max() + 1))[:, subject]
    chance = special.expit(center[model] + people + image_sd * seen)
    table = pd.concat([plan[columns]] * studies, ignore_index=True)
    return table.assign(
        study="one",
        picked_model=(rng.random(chance.shape) < chance).astype(int).ravel(),
        replication=np.repeat(np.arange(studies), len(plan)),
    )


def many(
    analyse: Callable[[pd.DataFrame], pd.DataFrame], studies: int, seed: int = 0, **setting: object
) -> pd.DataFrame:
    """The rows of an analysis of `studies` studies."""
    rng = np.random.default_rng(seed)
    sizes = [min(CHUNK, studies - start) for start in range(0, studies, CHUNK)]
    return pd.concat([analyse(redrawn(studies=size, rng=rng, **setting)) for size in sizes], ignore_index=True)


def misses(rows: pd.DataFrame, truth: float) -> tuple[float, float]:
    """Shares of the intervals that are wholly above the truth, and wholly below."""
    return float((truth < rows["ci_low"]).mean()), float((truth > rows["ci_high"]).mean())


def coverage_text(rows: pd.DataFrame, truth: float) -> str:
    below, above = misses(rows, truth)
    return f"covers {100 * (1 - below - above):5.1f} %, truth below {100 * below:4.1f} %, above {100 * above:4.1f} %"


def rate_studies(rate: float, studies: int, group_share: float = 0.5, **design: int) -> pd.DataFrame:
    setting = {"plan": simulate({"m": 0.5}, **design, **QUIET), "rates": {"m": rate}, "group_share": group_share}
    return many(lambda table: fool_rates(table, ["replication"]), studies, **setting)


def differences_of(plan: pd.DataFrame, rates: dict[str, float], studies: int, **setting: float) -> pd.DataFrame:
    return many(lambda table: compare(table, family=["replication"]), studies, plan=plan, rates=rates, **setting)


def promised(comparison: str, correlation: float, studies: int) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """Comparisons of two models, of 50 subjects and 100 images, whose power is known, and TOST of two equal ones.

    (those of models whose difference is found in 80 % of studies; equivalence of equal ones within 10 points, or 5
    within subjects; the share of studies that show it), as `power` says.
    """
    within, margin = comparison == "within", 0.05 if comparison == "within" else 0.1
    spread = replace(SPREAD, image_correlation=correlation)
    says = power(50, 100, 25 if within else 50, comparison=comparison, spread=spread, margin=margin).iloc[0]
    plan, effect = simulate({"a": 0.5, "b": 0.5}, within=within, **QUIET), says["detectable"]
    apart, equal = (
        differences_of(plan, {"a": 0.5 + d / 2, "b": 0.5 - d / 2}, studies, correlation=correlation)
        for d in (effect, 0.0)
    )
    return apart, equivalence(equal, margin), says["power_equivalence"]


def mixed_studies(design: tuple[int, int, int], within: bool, correlation: float, studies: int) -> pd.DataFrame:
    """Of the mixed model: whether intervals of an odds ratio and of a mean rate hold the truth; how far it is off."""
    rates = {"a": 0.45, "b": 0.3}
    center = [_center(rate, float(np.hypot(SUBJECT_SD, IMAGE_SD))) for rate in rates.values()]
    size = dict(zip(("subjects", "images", "trials"), design, strict=True))
    plan, truth = simulate(dict.fromkeys(rates, 0.5), within=within, **size, **QUIET), center[0] - center[1]

    def each(tables: pd.DataFrame) -> pd.DataFrame:
        rows = []
        for _, table in tables.groupby("replication"):
            fit = mixed_model(table)
            contrast, rate = fit.contrasts().iloc[0], fit.rates().iloc[1]
            held = {"contrast": contrast["ci_low"] <= truth <= contrast["ci_high"]}
            held["rate"] = rate["rate_low"] <= rates["b"] <= rate["rate_high"]
            rows.append(held | {"error": contrast["log_odds_ratio"] - truth, "se": contrast["se"]})
        return pd.DataFrame(rows)

    return many(each, studies, plan=plan, rates=rates, correlation=correlation)


def sampled_studies(samples: int, seed_share: float, studies: int, rate: float = 0.4) -> pd.DataFrame:
    """Parts of fool rates of a method that people see several samples of, each image as often in every one."""
    plan = simulate({"m": 0.5}, subjects=50, images=60, trials=30, **QUIET)
    plan = plan.assign(sample=plan.groupby("image_id").cumcount() % samples + 1)
    setting = {"plan": plan, "rates": {"m": rate}, "seed_share": seed_share}
    return many(lambda table: fool_rate_parts(table, ["replication"]), studies, **setting)


def side_studies(studies: int) -> pd.DataFrame:
    """Side bias where subjects prefer sides by logit SD 0.5, mean 0, and d' is 0."""
    plan, rng = simulate({"m": 0.5}, **QUIET), np.random.default_rng(0)

    def answered(table: pd.DataFrame) -> pd.DataFrame:
        subject = pd.factorize(table["replication"].astype(str) + table["subject"])[0]
        image = pd.factorize(table["replication"].astype(str) + table["image_id"])[0]
        real_left = (table["real_side"] == "left").to_numpy()
        fooled = IMAGE_SD * rng.normal(size=image.max() + 1)[image]
        liking = 0.5 * rng.normal(size=subject.max() + 1)[subject]
        left = rng.random(len(table)) < special.expit(liking + np.where(real_left, -fooled, fooled))
        answers = {"choice_side": np.where(left, "left", "right"), "picked_model": (left != real_left).astype(int)}
        return side_bias(table.assign(**answers), ["replication"])

    return many(answered, studies, plan=plan, rates={"m": 0.5})


def unrelated(groups: int | None, studies: int, resamples: int = 199, share: float = 0.5) -> pd.DataFrame:
    """Agreement over 64 images of 5 scores and answers that share their groups and nothing else.

    share: of the variance of both, that between groups.
    """
    plan = simulate({"m": 0.5}, subjects=50, images=64, trials=32, groups=groups, **QUIET)
    rng = np.random.default_rng(1)

    def compared(table: pd.DataFrame) -> pd.DataFrame:
        shown = table.drop_duplicates("image_id")
        group = shown["group"] if groups else shown["image_id"]
        code = pd.factorize(group)[0]
        of_groups, own = rng.normal(size=(5, code.max() + 1))[:, code], rng.normal(size=(5, 64))
        values = np.sqrt(share) * of_groups + np.sqrt(1 - share) * own
        base = pd.DataFrame({"task": "t", "method": "m", "image_id": shown["image_id"], "group": group})
        scores = pd.concat([base.assign(metric=f"m{i}", value=value) for i, value in enumerate(values)])
        return over_images(table.assign(task=1), scores, resamples=resamples)

    def each(tables: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([compared(table).assign(study=i) for i, table in tables.groupby("replication")])

    return pd.concat(
        [
            many(each, min(CHUNK, studies - start), seed=start, plan=plan, rates={"m": 0.4}, group_share=share).assign(
                chunk=start
            )
            for start in range(0, studies, CHUNK)
        ]
    )


def print_rates(studies: int) -> None:
    designs = [{"subjects": s, "images": i, "trials": t} for s, i, t in DESIGNS]
    for design, rate in itertools.product(designs, (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.98)):
        click.echo(f"rates  {rate:.2f} {design}: {coverage_text(rate_studies(rate, studies, **design), rate)}")


def print_groups(studies: int) -> None:
    parts = ((7, 0.5), (7, 0.8), (20, 0.5), (20, 0.8), (100, 0.5))
    for rate, (groups, share) in itertools.product((0.02, 0.05, 0.1, 0.3, 0.5), parts):
        rows = rate_studies(rate, studies, share, subjects=50, images=100, trials=50, groups=groups)
        click.echo(f"groups  {rate:.2f}, {share:.0%} between {groups} photographs: {coverage_text(rows, rate)}")


def print_differences(studies: int) -> None:
    for groups, within, correlation in itertools.product((None, 7, 20), (False, True), (1.0, 0.5)):
        design = {"subjects": 50, "images": 64, "trials": 32, "groups": groups, "within": within}
        plan = simulate({"a": 0.5, "b": 0.5}, **design, **QUIET)
        rows = differences_of(plan, {"a": 0.45, "b": 0.35}, studies, correlation=correlation, group_share=0.8)
        click.echo(f"differences  {design}, correlation {correlation}: {coverage_text(rows, 0.1)}")
    plan = simulate({"a": 0.5, "b": 0.5}, subjects=10, images=20, trials=10, within=True, **QUIET)
    rows = differences_of(plan, {"a": 0.05, "b": 0.02}, studies)
    click.echo(f"differences  of rates of 5 and 2 %, 10 subjects, 20 images within: {coverage_text(rows, 0.03)}")


def print_power(studies: int) -> None:
    for comparison, correlation in itertools.product(("between", "within"), (0.0, 0.5, 1.0)):
        apart, equal, says = promised(comparison, correlation, studies)
        found = f"80.0 %, found {100 * (apart['p'] < 0.05).mean():.1f} %"
        shown = f"{100 * says:.1f} %, found {100 * equal['equivalent'].mean():.1f} %"
        click.echo(f"power  {comparison}, correlation {correlation}: promised {found}; equivalence promised {shown}")


def print_sides(studies: int) -> None:
    rows = side_studies(studies)
    click.echo(f"sides  left_p < 5 % in {100 * (rows['left_p'] < 0.05).mean():.1f} % of studies")
    for name in ("d_prime", "criterion"):
        covered = (rows[name].abs() < stats.t.ppf(0.975, 49) * rows[f"{name}_se"]).mean()
        click.echo(f"sides  {name} with its standard error covers 0 in {100 * covered:.1f} %")


def print_agreement(studies: int) -> None:
    for groups, share in itertools.product((7, 20, None), (0.5, 0.8)):
        rows = unrelated(groups, studies, 999, share)
        one, any_of = (rows["p"] < 0.05).mean(), (rows.groupby(["chunk", "study"])["p_holm"].min() < 0.05).mean()
        shares = f"p < 5 % in {100 * one:.1f} %, the least of 5 p_holm in {100 * any_of:.1f} %"
        held = ((rows["spearman_low"] <= 0) & (rows["spearman_high"] >= 0)).mean()
        what = f"64 images of {groups or 64} groups, {share:.0%} between them"
        click.echo(f"agreement  {what}: {shares}, rho's interval covers {100 * held:.1f} %")


def print_mixed(studies: int) -> None:
    for design, within, correlation in itertools.product(DESIGNS, (False, True), (0.5, 1.0)):
        rows = mixed_studies(design, within, correlation, studies)
        covered = f"odds ratios {100 * rows['contrast'].mean():.1f} %, rates {100 * rows['rate'].mean():.1f} %"
        off = f"log odds ratio off by {rows['error'].mean():+.3f}, SD {rows['error'].std():.3f}"
        how = "within" if within else "between"
        click.echo(
            f"mixed  {design} {how}, correlation {correlation}: covers {covered}; {off}, se {rows['se'].mean():.3f}"
        )


def print_seeds(studies: int) -> None:
    for samples, share in itertools.product((1, 3, 5), (0.0, 0.3, 0.6)):
        for what, rows, truth in (
            ("score", scored_studies(samples, share, studies), 0.0),
            ("fool rate", sampled_studies(samples, share, studies), 0.4),
        ):
            found = f"; seed share found {100 * rows['seed_share'].mean():.0f} %" if samples > 1 else ""
            where = f"{samples} samples an image, {share:.0%} of the variance"
            click.echo(f"seeds  {what}, {where}: {coverage_text(rows, truth)}{found}")


def print_ceilings(studies: int) -> None:
    """What a metric that knows the truth reaches in the mean, and what ceilings say of it."""

    def line(what: str, rows: pd.DataFrame) -> None:
        mean = rows["reached"].mean()
        held = ((rows["ceiling_low"] <= mean) & (mean <= rows["ceiling_high"])).mean()
        says = f"{rows['ceiling'].mean():.3f} in the mean, reached {mean:.3f}, which intervals hold in"
        click.echo(f"ceilings  {what}: {says} {100 * held:.1f} %")

    for subjects, spread, groups in ((20, 1.5, 60), (60, 0.8, 60), (60, 0.3, 60), (60, 0.8, 20), (60, 0.8, 7)):
        what = f"over 60 images of {groups} photographs, {subjects} subjects, SD {spread}"
        line(what, image_ceilings(studies, subjects, spread, groups))
    for within, trials in ((True, 32), (False, 16)):
        rows = model_ceilings(studies, within, trials)
        line(f"over 8 models, {rows['views'].median():.0f} answers to each", rows)


def print_alpha(studies: int) -> None:
    for groups, images in ((100, 100), (20, 100), (7, 70)):
        rows = alphas(studies, groups, images).rename(columns={"alpha_low": "ci_low", "alpha_high": "ci_high"})
        click.echo(f"alpha  {images} images of {groups} photographs: {coverage_text(rows, true_alpha(0.8))}")


def print_thresholds(studies: int) -> None:
    five, two = (250, 500, 1000, 2000, 4000), (500, 2000)
    for times, subjects, images, groups in (
        (five, 10, 40, None),
        (five, 20, 100, None),
        (two, 25, 50, None),
        (five, 10, 40, 10),
    ):
        size = {"subjects": subjects, "images": images, "trials": images // 2, "groups": groups}
        rows = timed_thresholds(studies, times, **size)
        click.echo(f"thresholds  {len(times)} times, {size}: {coverage_text(rows, THRESHOLD_MS)}")


def print_headline(studies: int) -> None:
    """Of one design: the interval, and those that take images for fixed or answers for independent."""
    plan = simulate({"m": 0.5}, **QUIET)
    for what, analyse, names in (
        ("two-way", fool_rates, ("ci_low", "ci_high")),
        ("over subjects alone", subject_summary, ("ci_low", "ci_high")),
        ("Wilson's", pooled, ("wilson_low", "wilson_high")),
    ):
        rows = many(partial(analyse, by=["replication"]), studies, plan=plan, rates={"m": 0.5})
        found = pd.DataFrame(rows[list(names)].to_numpy(), columns=["ci_low", "ci_high"])
        click.echo(f"headline  50 subjects, 100 images, 50 trials, {what}: {coverage_text(found, 0.5)}")


def print_single_images(studies: int) -> None:
    for image_sd, design in itertools.product((0.0, 0.4, 0.8), ((10, 20, 10), (50, 100, 50))):
        covered = images_covered(studies, *design, image_sd)
        click.echo(f"single-images  subjects, images, trials {design}, SD {image_sd}: covers {100 * covered:.1f} %")


PARTS = {
    "rates": print_rates,
    "groups": print_groups,
    "differences": print_differences,
    "power": print_power,
    "mixed": print_mixed,
    "sides": print_sides,
    "agreement": print_agreement,
    "single-images": print_single_images,
    "seeds": print_seeds,
    "ceilings": print_ceilings,
    "alpha": print_alpha,
    "thresholds": print_thresholds,
    "headline": print_headline,
}


@click.command(context_settings={"show_default": True})
@click.option("--studies", default=1000, help="Simulated studies of each line.")
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, default=list(PARTS))
def main(studies: int, only: tuple[str, ...]) -> None:
    """Print measured coverage, error rates and power of every analysis."""
    for name in only:
        PARTS[name](studies)


if __name__ == "__main__":
    main()
