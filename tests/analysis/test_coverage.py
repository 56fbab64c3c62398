"""How often 95 % intervals contain the truth, over seeded studies with new subjects and new images in each."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from analysis.comparisons import compare
from analysis.fool_rate import equivalence, fool_rates, pooled, subject_summary
from analysis.simulation import simulate

SUBJECT_SD, IMAGE_SD = 0.5, 0.8  # logits, as in study_protocol.md §4's table
STUDIES = 600


def redrawn(plan: pd.DataFrame, studies: int, seed: int) -> pd.DataFrame:
    """The trials of a plan answered by new people before new images in each study; all true rates are 50 %."""
    rng = np.random.default_rng(seed)
    subject, image = (pd.factorize(plan[column])[0] for column in ("subject", "image_id"))
    people = rng.normal(0, SUBJECT_SD, (studies, subject.max() + 1))[:, subject]
    chance = expit(people + rng.normal(0, IMAGE_SD, (studies, image.max() + 1))[:, image])
    table = pd.concat([plan[["model", "subject", "image_id", "kind"]]] * studies, ignore_index=True)
    return table.assign(
        study="one",
        picked_model=(rng.random(chance.shape) < chance).astype(int).ravel(),
        replication=np.repeat(np.arange(studies), len(plan)),
    )


def covered(table: pd.DataFrame, truth: float, low: str = "ci_low", high: str = "ci_high") -> float:
    assert len(table) >= 200
    return float(((table[low] <= truth) & (truth <= table[high])).mean())


@pytest.fixture(scope="module")
def studies():
    return redrawn(simulate({"sr3": 0.5}, catch=0, practice=0), STUDIES, seed=11)


def test_the_headline_covers_and_the_naive_do_not(studies):
    rates = fool_rates(studies, by=["replication"])
    assert 0.93 <= covered(rates, 0.5) <= 0.97
    assert 0.03 <= (rates["p_50"] < 0.05).mean() <= 0.07
    together = pooled(studies, by=["replication"])
    assert covered(together, 0.5, "wilson_low", "wilson_high") < 0.65
    assert covered(together, 0.5, "exact_low", "exact_high") < 0.65
    assert covered(subject_summary(studies, by=["replication"]), 0.5) < 0.9
    assert not equivalence(rates)["equivalent"].all()


@pytest.mark.parametrize("within", [False, True])
def test_differences_of_models_cover(within):
    plan = simulate({"a": 0.5, "b": 0.5}, within=within, catch=0, practice=0)
    pairs = compare(redrawn(plan, 250, seed=3), family=["replication"])
    assert set(pairs["design"]) == {"within" if within else "between"}
    assert 0.92 <= covered(pairs, 0.0) <= 0.985
