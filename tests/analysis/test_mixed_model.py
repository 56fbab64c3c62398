"""The logistic mixed model: exact where nothing varies, covering where it does, and the same terms in R's script."""

import numpy as np
import pandas as pd
import pytest
from interval_coverage import mixed_studies
from known_judges import QUIET
from scipy import special, stats

from analysis.errors import DataError
from analysis.export_r import export_r
from analysis.mixed_model import mixed_model
from analysis.simulation import simulate


def test_where_all_subjects_and_images_are_alike_it_is_a_logistic_regression():
    """Each subject picks a third of a's pictures and a half of b's, each image is picked as often."""
    rows = [
        (f"{model}{s}", str(i), model, int((s + i) % period == 0))
        for model, period in (("a", 3), ("b", 2))
        for s in range(12)
        for i in range(18)
    ]
    table = pd.DataFrame(rows, columns=["subject", "image_id", "model", "picked_model"]).assign(
        study="one", kind="test"
    )
    fit = mixed_model(table)
    rates, contrast = fit.rates().set_index("model"), fit.contrasts().iloc[0]
    assert max(fit.sds.values()) == pytest.approx(0.01)  # the bound
    np.testing.assert_allclose(rates["logit"], special.logit([1 / 3, 1 / 2]), atol=1e-3)
    np.testing.assert_allclose(rates["rate"], [1 / 3, 1 / 2], atol=1e-3)
    variance = 1 / (216 * np.array([2 / 9, 1 / 4]))
    np.testing.assert_allclose(rates["se"], np.sqrt(variance), rtol=2e-3)
    assert contrast["se"] == pytest.approx(np.sqrt(variance.sum()), rel=2e-3) and contrast["df"] == 11
    assert contrast["odds_ratio"] == pytest.approx(1 / 2, rel=2e-3)
    p = 2 * stats.t.sf(abs(contrast["log_odds_ratio"]) / contrast["se"], 11)
    assert contrast["p"] == contrast["p_holm"] == pytest.approx(p)


def test_it_finds_what_lme4_finds():
    """By mixed_model.R of `export_r` with R 4.2.2, lme4 1.1.31 and emmeans 1.8.4; its variances are not restricted."""
    design = {"subjects": 25, "images": 60, "trials": 30, "groups": 15, "image_correlation": 0.5, "seed": 6, **QUIET}
    fit = mixed_model(simulate({"a": 0.45, "b": 0.3}, **design))
    np.testing.assert_allclose(fit.logits, [0.2574, -0.3880], atol=0.003)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.covariance)), [0.2137, 0.2143], rtol=0.03)
    contrast = fit.contrasts().iloc[0]
    assert contrast["log_odds_ratio"] == pytest.approx(0.645, abs=0.003)
    assert contrast["se"] == pytest.approx(0.257, rel=0.03)
    sds = {"subject": 0.4809, "image": 0.2910, "image:level": 0.2910, "group": 0.4137, "group:level": 0.4875}
    assert fit.sds == pytest.approx(sds, abs=0.025)


def test_contrasts_and_rates_cover():
    rows = mixed_studies((12, 20, 10), False, 0.5, 30)
    slack = 2.5 * np.sqrt(0.05 * 0.95 / 30)
    assert rows["contrast"].mean() > 0.93 - slack and rows["rate"].mean() > 0.93 - slack
    assert abs(rows["error"].mean()) < 0.15 * 0.75 + 2.5 * rows["error"].std() / np.sqrt(30)  # 0.75: the truth
    assert rows["se"].mean() > 0.85 * rows["error"].std()


def test_what_varies_is_found():
    design = {"subjects": 80, "images": 80, "trials": 80, "within": True, "image_correlation": 0.5, **QUIET}
    fit = mixed_model(simulate({"a": 0.5, "b": 0.4}, seed=2, **design))
    found = [fit.sds[name] for name in ("subject", "image", "image:level")]
    np.testing.assert_allclose(found, [0.5, 0.8 * np.sqrt(0.5), 0.8 * np.sqrt(0.5)], atol=0.15)
    assert fit.sds["subject:level"] < 0.25


def test_what_has_no_finite_logit_or_is_several_studies_is_refused(kept):
    one = kept[kept["exposure_ms"] == 3000]
    never = one.assign(picked_model=one["picked_model"].where(one["model"] != "pulse", 0))
    with pytest.raises(DataError, match="all answers to model pulse are the same"):
        mixed_model(never)
    with pytest.raises(DataError, match="belong to several exposure_ms .3000, 6000.: choose one"):
        mixed_model(kept)
    with pytest.raises(DataError, match="not estimable: one subject"):
        mixed_model(one[one["subject"] == one["subject"].iloc[0]])


def test_the_script_for_r_has_the_same_terms(kept, tmp_path):
    one = kept[kept["exposure_ms"] == 3000].assign(group=lambda t: "g" + (t["image_id"].astype(int) % 12).astype(str))
    export_r(one, tmp_path / "new" / "r")
    answers = pd.read_csv(tmp_path / "new" / "r" / "answers.csv")
    assert list(answers) == ["picked_model", "level", "subject", "image", "group"]
    sizes = {column: answers[column].nunique() for column in ("level", "subject", "image", "group")}
    assert sizes == {"level": 3, "subject": one["subject"].nunique(), "image": 40, "group": 12}
    np.testing.assert_allclose(
        answers.groupby("level")["picked_model"].mean(), one.groupby("model")["picked_model"].mean()
    )
    script = (tmp_path / "new" / "r" / "mixed_model.R").read_text()
    terms = " + ".join(f"(1 | {name})" for name in mixed_model(one).sds)
    assert f"picked_model ~ 0 + level + {terms},\n" in script
    assert '"factor", 4)' in script
