"""Means and tests of a table: over the same images for every method, and the true reason where there is none."""

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from benchmark import main
from sr3eval import metrics
from sr3eval.benchmark import summary, table
from sr3eval.benchmark.config import TableConfig
from sr3eval.benchmark.scores import Scores, read_run
from sr3eval.metrics import Convention
from sr3eval.significance import bootstrap_interval, sign_flip_p

PSNR = metrics.load("psnr")
CEILING = 20 * math.log10(510)  # of an error of half a level: 54.15 dB


def summarise(metric="psnr", **methods):
    """results.csv of methods by name, each with its scores image by image."""
    rows = [
        ("photos_16_64", name, str(i), metric, value, str(i))
        for name, v in methods.items()
        for i, value in enumerate(v)
    ]
    per_image = pd.DataFrame(rows, columns=["task", "method", "image_id", "metric", "value", "group"])
    described = pd.DataFrame({"task": "photos_16_64", "method": list(methods), "images": "", "made_by": ""})
    described = described.assign(method_notes="")
    described = described.assign(method_settings="", method_warning="", n_too_small=0, n_unreadable=0)
    sets = pd.DataFrame(columns=["task", "method", "metric", "left_out", "value", "n"])
    seeds = pd.DataFrame(columns=["task", "method", "metric", "seed", "value"])
    draws = pd.DataFrame(columns=["task", "method", "image_id", "metric", "seed", "sample", "value", "group"])
    frames = [frame.assign(dataset="") for frame in (per_image, sets, seeds, draws, described)]
    convention = PSNR.convention if metric == "psnr" else Convention(metric, metric, True, "")
    return summary.summarise(Scores(*frames), {metric: convention}).set_index("method")


def test_a_method_that_equals_hr_is_not_worse_for_it():
    """12 images: A equals HR in 10 and has 26.5 dB in 2; B has 42 dB in all."""
    inf = math.inf
    results = summarise(A=[inf] * 10 + [26.5] * 2, B=[42.0] * 12)
    assert results.loc["A", "value"] == pytest.approx((10 * CEILING + 2 * 26.5) / 12, rel=1e-12)
    assert results["best"].to_dict() == {"A": True, "B": False}
    assert results["n"].tolist() == [12, 12] and results["n_infinite"].tolist() == [10, 0]
    differences = np.array([42 - CEILING] * 10 + [42 - 26.5] * 2)
    groups = np.arange(12).astype(str).astype(object)
    assert results.loc["B", "delta_to_best"] == pytest.approx(differences.mean(), rel=1e-12)
    assert results.loc["B", "p_value"] == sign_flip_p(differences, groups)
    ends = bootstrap_interval(np.array([CEILING] * 10 + [26.5] * 2), groups)
    assert tuple(results.loc["A", ["ci_low", "ci_high"]]) == pytest.approx(ends, rel=1e-12)
    text = table.markdown(results.reset_index())
    assert text.count("‡") == 2 and "| **49.54**‡ [" in text
    assert "‡: images equal to HR count as 54.15 dB, an error of half a grey level, in PSNR: 10 of A." in text
    assert f"of at most {CEILING:.2f} dB an image" in text


def test_nothing_is_better_than_identical():
    """One pixel that is one level off has 89 dB: in a mean, no more than no error at all."""
    nearly = 10 * math.log10(255**2 * 64 * 64 * 3)
    results = summarise(A=[math.inf] * 4, B=[nearly] * 4, C=[30.0] * 4)
    assert results.loc[["A", "B"], "value"].tolist() == pytest.approx([CEILING] * 2)
    assert results["best"].tolist() == [True, True, False]


def test_an_infinity_is_no_want_of_groups():
    """Four methods, 12 images, one of them HR itself: there is a test, and it finds the difference."""
    rng = np.random.default_rng(0)
    results = summarise(HR=[math.inf] * 12, **{name: rng.normal(30, 1, 12) for name in "BCD"})
    assert results.loc[list("BCD"), "testable"].eq(True).all()
    assert (results.loc[list("BCD"), "p_value"] < 0.05).all()
    assert "Too few groups" not in table.markdown(results.reset_index())


def test_images_without_a_score_in_one_method_are_left_out_of_all():
    results = summarise("sharpness", A=[1.0, 2.0, math.nan, 4.0], B=[5.0, 1.0, 9.0, math.inf])
    assert results["value"].tolist() == [1.5, 3.0]
    assert results["n"].tolist() == [2, 2]
    assert "sharpness: 2 images without a finite score in some method, left out of all." in table.markdown(
        results.reset_index()
    )


def test_no_common_image_is_not_too_few_groups():
    results = summarise("sharpness", A=[1.0, math.nan], B=[math.nan, 2.0])
    text = table.markdown(results.reset_index())
    assert "Too few groups" not in text and "nan" not in text
    assert "2 images without a finite score" in text


def test_the_reference_keeps_its_infinity():
    results = summarise(reference=[math.inf] * 3, A=[30.0, 31.0, 32.0])
    assert results.loc["reference", "value"] == math.inf
    assert not results.loc["reference", "best"] and results.loc["A", "best"]
    assert "‡" not in table.markdown(results.reset_index())


def test_the_metric_itself_has_the_same_mean():
    metric = metrics.load("psnr", channel="y")
    metric.state = {"a": math.inf, "b": 30.0}
    assert metric.compute().value == pytest.approx((CEILING + 30) / 2)
    assert metric.compute().per_image == {"a": math.inf, "b": 30.0}
    assert metric.convention.ceiling == PSNR.convention.ceiling == pytest.approx(CEILING)
    assert metrics.load("ssim").convention.ceiling == math.inf


SIZES = {f"{name}/{i}": (16, 16) for name in ("Set5", "B_100") for i in range(3 if name == "Set5" else 2)}
PSNRS = {"Ours": [30.0, 31, 32, 20, 21], "R & D": [31.0, 32, 33, 20, 21], "old": [29.0, 29, 29, 28, 28]}
COMPACT = r"""% \usepackage{booktabs}
\begin{table}[t]
  \centering
  \caption{Super-resolution results on Set5, B\_100 (photos\_16\_64). Best in bold, second best underlined.}
  \label{tab:photos_16_64}
  \setlength{\tabcolsep}{4pt}
  \begin{tabular}{@{}lrr@{}}
    \toprule
    & \multicolumn{1}{c}{Set5} & \multicolumn{1}{c}{B\_100} \\
    \cmidrule(l){2-2} \cmidrule(l){3-3}
    Method & PSNR $\uparrow$ & PSNR $\uparrow$ \\
    \midrule
    Ours & \underline{31.00} & \underline{20.50} \\
    R \& D & \textbf{32.00} & \underline{20.50} \\
    old & 29.00 & \textbf{28.00} \\
    \bottomrule
  \end{tabular}
\end{table}
% Set5: 3 images, B_100: 2 images; bold: best.
% PSNR: in dB, RGB, mean.
"""


@pytest.fixture(scope="module")
def sets(write_run, conventions, tmp_path_factory):
    """Results of three methods on two data sets."""
    run = write_run(tmp_path_factory.mktemp("sets"), SIZES, {"psnr": PSNRS}, dataset=True)
    scores = read_run(run)
    scores = replace(scores, methods=scores.methods.assign(method_settings=""))
    return summary.summarise(scores, {"psnr": conventions["psnr"]})


def test_data_sets_are_groups_of_columns_each_compared_on_its_own(sets):
    assert sets[sets["best"]][["dataset", "method", "value"]].to_numpy().tolist() == (
        [["Set5", "R & D", 32], ["B_100", "old", 28]]
    )
    ours = sets[(sets["dataset"] == "Set5") & (sets["method"] == "Ours")].iloc[0]
    assert (ours["delta_to_best"], ours["n"]) == (-1, 3)
    assert table.latex(sets) == COMPACT
    text = table.markdown(sets)
    assert re.search(r"\| Method \| Set5 PSNR ↑ +\| B_100 PSNR ↑ +\|\n", text) and "| **32.00** [31.00, 33.00] " in text


def test_the_config_chooses_the_look_of_the_latex(sets):
    config = TableConfig(r"On \textit{both}.", "tab:ours", wide=True, intervals=True, title="Both")
    text = table.latex(sets, config)
    assert text.splitlines()[1:5] == (
        [r"\begin{table*}[t]", r"  \centering", r"  \caption{On \textit{both}.}", r"  \label{tab:ours}"]
    )
    assert r"\textbf{32.00} {\scriptsize [31.00, 33.00]} &" in text and r"\end{table*}" in text
    assert table.markdown(sets, config).startswith("### Both: photos_16_64\n")
    other = pd.concat([sets, sets.assign(task="faces_16_128")])
    assert re.findall(r"label{(.+)}", table.latex(other, config)) == ["tab:ours-photos_16_64", "tab:ours-faces_16_128"]


@pytest.mark.parametrize(("count", "environment"), [(3, "table"), (8, "table*")])
def test_a_table_that_does_not_fit_a_column_takes_both(sets, count, environment):
    """At 10 pt a column of 237 pt holds about 40 characters and gaps."""
    one = sets[sets["dataset"] == "Set5"].assign(dataset="")
    results = pd.concat([one.assign(metric=f"m{i}", label=f"PSNR{i}") for i in range(count)])
    assert f"\\begin{{{environment}}}[t]" in table.latex(results)


LONG = {
    "Ours": "my own model of the paper, second variant, 50 steps a",
    "old": "my_own_model_of_the_paper_second_variant_b",
}


def test_long_names_take_lines_and_leave_a_table_in_one_column(sets):
    one = sets[sets["dataset"] == "Set5"].assign(dataset="").replace({"method": LONG})
    text = table.latex(pd.concat([one.assign(metric=f"m{i}", label=f"PSNR{i}") for i in range(3)]))
    assert "\\begin{table}[t]" in text
    lines = r"{@{}l@{}}my own model of the \\ paper, second \\ variant, 50 steps a\end{tabular} & "
    assert lines in text and r"my\_own\_model\_of\_the\_ \\ paper\_second\_ \\ variant\_b\end" in text
    assert f"| {LONG['Ours']} |" in table.markdown(sets.replace({"method": LONG}))


def test_metrics_bring_their_own_label_unit_and_decimals(sets):
    own = sets.assign(label="MSE, masked", unit="×10⁻⁵", decimals=1, higher_is_better=False)
    assert "| Set5 MSE, masked (×10⁻⁵) ↓ |" in table.markdown(own) and "| 31.0 [30.0, 32.0]" in table.markdown(own)
    assert r"\shortstack[r]{MSE\\masked ($\times$10$^{-}$$^{5}$) $\downarrow$}" in table.latex(own)
    assert "MSE, masked: in ×10⁻⁵, RGB, mean." in table.markdown(own)
    decibels = sets.assign(label="PSNR", unit="dB", decimals=2)
    assert "Set5 PSNR ↑" in table.markdown(decibels) and "- PSNR: in dB, RGB, mean." in table.markdown(decibels)


def test_what_metrics_share_is_said_once(sets):
    ssim = sets.assign(metric="ssim", label="SSIM", unit="", settings="RGB, window (11, 11), mean")
    text = table.markdown(pd.concat([sets, ssim]))
    assert text.endswith("- PSNR / SSIM: RGB, mean.\n- SSIM: window (11, 11).\n")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("metrics", r"^psnr +Peak signal-to-noise ratio$"),
        ("methods", r"^bicubic +Bicubic interpolation .*$"),
        ("methods", r"^esrgan +ESRGAN \(Wang et al. 2018.*$"),
        ("protocols", r"^classic +Set5, Set14, .*$"),
        ("tasks", r"^photos_16_64 +16x16 to 64x64 pixels, free photographs$"),
    ],
)
def test_what_there_is_can_be_listed(what, expected):

    result = CliRunner().invoke(main, ["list", what])
    assert result.exit_code == 0, result.stderr
    assert re.search(expected, result.stdout, re.MULTILINE)
    assert all(len(line.split(maxsplit=1)) == 2 for line in result.stdout.strip().splitlines())


def test_a_label_tells_metrics_of_one_task_apart_and_no_others():
    """PSNR within a border of 2 at x2, and of 4 and none at x4."""
    rows = [("x2", "psnr_b2", "border 2"), ("x4", "psnr_b4", "border 4"), ("x4", "psnr", "RGB")]
    results = pd.DataFrame(rows, columns=["task", "metric", "variant"]).assign(label="PSNR", decimals=2)
    assert table.labelled(results)["label"].tolist() == ["PSNR", "PSNR (border 4)", "PSNR (RGB)"]
