"""How often intervals cover the truth and tests find what is not there, over simulated studies: python coverage.py.

Each line is a design with the shares that were measured. --studies sets the number of studies (10,000 bring the
standard error of 95 % to 0.2 points), --only chooses lines by their first word.
"""

from collections.abc import Callable
from dataclasses import replace

import click
import numpy as np
import pandas as pd
from scipy import special

from analysis.agreement import over_images
from analysis.comparisons import compare
from analysis.fool_rate import fool_rates
from analysis.image_rates import image_rates
from analysis.power import Spread, power, spread_of
from analysis.signal_detection import side_bias
from analysis.simulation import _center, simulate

SUBJECT_SD, IMAGE_SD = 0.5, 0.8  # logits
SPREAD = Spread(subject=0.100, image=0.163)  # the same on the scale of rates, near 50 %
QUIET = {"catch": 0, "practice": 0}
CHUNK = 250  # studies in one frame


def redrawn(
    plan: pd.DataFrame,
    rates: dict[str, float],
    studies: int,
    rng: np.random.Generator,
    correlation: float = 1.0,
    group_share: float = 0.5,
    image_sd: float = IMAGE_SD,
) -> pd.DataFrame:
    """The trials of a plan, answered in each study by new people before new images; true rates are known."""
    columns = [c for c in ("model", "subject", "image_id", "kind", "group", "real_side") if c in plan]
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


def tails(rows: pd.DataFrame, truth: float) -> str:
    below, above = (truth < rows["ci_low"]).mean(), (truth > rows["ci_high"]).mean()
    return f"covers {100 * (1 - below - above):5.1f} %, truth below {100 * below:4.1f} %, above {100 * above:4.1f} %"


def rates_of(studies: int) -> None:
    designs = {
        "50 subjects, 100 images, 50 trials": {"subjects": 50, "images": 100, "trials": 50},
        "25 subjects, 100 images, 10 trials": {"subjects": 25, "images": 100, "trials": 10},
        "50 subjects, 64 images of 7 groups, 32 trials": {"subjects": 50, "images": 64, "trials": 32, "groups": 7},
        "50 subjects, 64 images of 16 groups, 32 trials": {"subjects": 50, "images": 64, "trials": 32, "groups": 16},
    }
    for name, design in designs.items():
        plan = simulate({"m": 0.5}, **design, **QUIET)
        for rate in (0.02, 0.05, 0.3, 0.5, 0.98):
            rows = many(lambda table: fool_rates(table, ["replication"]), studies, plan=plan, rates={"m": rate})
            click.echo(f"rates  {rate:.2f}, {name}: {tails(rows, rate)}, no interval {rows['ci_low'].isna().sum()}")


def differences(studies: int) -> None:
    for groups in (None, 7):
        for within in (False, True):
            design = {"subjects": 50, "images": 64, "trials": 32, "groups": groups, "within": within}
            plan = simulate({"a": 0.5, "b": 0.5}, **design, **QUIET)
            for correlation in (1.0, 0.5):
                setting = {"plan": plan, "rates": {"a": 0.45, "b": 0.35}, "correlation": correlation}
                rows = many(lambda table: compare(table, family=["replication"]), studies, **setting)
                where = f"{groups or 64} groups, {'within' if within else 'between'}, correlation {correlation}"
                click.echo(f"differences  {where}: {tails(rows, 0.1)}")


def promises(studies: int) -> None:
    plan = simulate({"a": 0.5, "b": 0.5}, **QUIET)
    for correlation in (0.0, 0.5, 1.0):
        spread = replace(SPREAD, image_correlation=correlation)
        effect = power(50, 100, 50, comparison="between", spread=spread)["detectable"][0]
        rates = {"a": 0.5 + effect / 2, "b": 0.5 - effect / 2}
        setting = {"plan": plan, "rates": rates, "correlation": correlation}
        rows = many(lambda table: compare(table, family=["replication"]), studies, **setting)
        said = many(lambda table: spread_of(table, ["replication", "model"]), min(studies, CHUNK), **setting)
        estimated = said["image_correlation"].mean()
        share = f"promised 80.0 %, found {100 * (rows['p'] < 0.05).mean():.1f} %"
        click.echo(f"power  correlation {correlation}: {share}; spread_of: {estimated:.2f} on average")


def sides(studies: int) -> None:
    """Subjects prefer sides by logit SD 0.5, mean 0; d' is 0."""
    plan = simulate({"m": 0.5}, **QUIET)
    rng = np.random.default_rng(0)

    def analyse(table: pd.DataFrame) -> pd.DataFrame:
        subject = pd.factorize(table["replication"].astype(str) + table["subject"])[0]
        liking = rng.normal(0, 0.5, subject.max() + 1)[subject]
        real_left = table["real_side"] == "left"
        logit = (
            liking
            + np.where(real_left, 1, -1)
            * rng.normal(0, 0.8, (CHUNK, 100))[table["replication"], table["image_id"].astype(int)]
        )
        left = rng.random(len(table)) < special.expit(logit)
        table = table.assign(choice_side=np.where(left, "left", "right"), picked_model=(left != real_left).astype(int))
        return side_bias(table, ["replication"])

    rows = many(analyse, studies, plan=plan, rates={"m": 0.5})
    click.echo(f"sides  left_p < 5 % in {100 * (rows['left_p'] < 0.05).mean():.1f} % of studies")
    for name in ("d_prime", "criterion"):
        covered = (rows[name].abs() < 2.01 * rows[f"{name}_se"]).mean()
        click.echo(f"sides  {name} ± 2.01 standard errors covers 0 in {100 * covered:.1f} %")


def agreement(studies: int) -> None:
    """Scores and answers that share their groups and nothing else."""
    for groups, images in ((7, 64), (16, 64), (None, 64)):
        plan = simulate({"m": 0.5}, subjects=50, images=images, trials=32, groups=groups, **QUIET)
        tests = many(lambda table: table, studies, plan=plan, rates={"m": 0.4}).assign(task=1)
        rng, found, adjusted = np.random.default_rng(1), [], []
        tests["replication"] = np.repeat(np.arange(studies), len(plan))
        for _, table in tests.groupby("replication"):
            shown = table.drop_duplicates("image_id")
            group = shown["group"] if groups else shown["image_id"]
            common = rng.normal(size=(5, len(shown)))[:, pd.factorize(group)[0]]
            values = np.sqrt(0.5) * common + np.sqrt(0.5) * rng.normal(size=common.shape)
            scores = pd.concat(
                [
                    pd.DataFrame(
                        {
                            "task": "t",
                            "method": "m",
                            "image_id": shown["image_id"],
                            "metric": f"m{i}",
                            "value": v,
                            "group": group,
                        }
                    )
                    for i, v in enumerate(values)
                ]
            )
            rows = over_images(table, scores, resamples=200)
            found.append((rows["p"] < 0.05).mean())
            adjusted.append((rows["p_holm"] < 0.05).any())
        said = f"p < 5 % in {100 * np.mean(found):.1f} %, any of 5 p_holm in {100 * np.mean(adjusted):.1f} %"
        click.echo(f"agreement  {images} images of {groups or images} groups: {said}")


def single_images(studies: int) -> None:
    """The rate of an image is that over all people, for whom the simulation's own SD of 0.5 counts."""
    nodes, weights = special.roots_hermitenorm(64)
    for image_sd in (0.0, 0.4, 0.8):
        for subjects, images, trials in ((10, 20, 10), (50, 100, 50)):
            covered = []
            for seed in range(studies if images == 20 else studies // 4):
                design = {"subjects": subjects, "images": images, "trials": trials, "image_sd": image_sd, "seed": seed}
                effect = np.random.default_rng(seed).normal(0, 1, images) * image_sd
                center = _center(0.3, float(np.hypot(0.5, image_sd)))
                truth = special.expit(center + effect[:, None] + 0.5 * nodes) @ weights / weights.sum()
                rows = image_rates(simulate({"m": 0.3}, **design, **QUIET))
                true = truth[rows["image_id"].astype(int)]
                covered.append(((rows["shrunk_low"] <= true) & (true <= rows["shrunk_high"])).mean())
            name = f"{subjects} subjects, {images} images of SD {image_sd}, {trials} trials"
            click.echo(f"single-images  {name}: covers {100 * np.mean(covered):.1f} %")


PARTS = {
    "rates": rates_of,
    "differences": differences,
    "power": promises,
    "sides": sides,
    "agreement": agreement,
    "single-images": single_images,
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
