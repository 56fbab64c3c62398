"""What figures draw is what the tables say; files are the same each time."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from analysis import figures
from analysis.errors import DataError
from analysis.exclusions import Rules
from analysis.fool_rate import fool_rates
from analysis.image_rates import extremes, image_rates
from analysis.mixed_model import MixedModel
from analysis.preference import bradley_terry, pair_rates, win_matrix
from analysis.psychometric import thresholds
from analysis.response_times import order_effects
from analysis.simulated_choices import simulate_choices
from analysis.simulation import simulate
from analysis.summary import study_results


def points(panel) -> list[np.ndarray]:
    """(x, y) of the data line of each error bar."""
    return [container.lines[0].get_xydata() for container in panel.containers if hasattr(container, "has_yerr")]


def spans(panel, axis: int) -> np.ndarray:
    """(low, high) of all error bars of a panel, in order."""
    segments = [s for c in panel.containers if hasattr(c, "has_yerr") for bar in c.lines[2] for s in bar.get_segments()]
    return np.array([segment[:, axis] for segment in segments])


@pytest.fixture(scope="module")
def two_tasks(kept):
    return pd.concat([kept, kept.assign(task=2, study="second", picked_model=1 - kept["picked_model"])])


@pytest.mark.parametrize("width", [figures.SINGLE, figures.DOUBLE])
def test_fool_rates(two_tasks, width):
    rates = fool_rates(two_tasks)
    figure = figures.fool_rates(rates, models=["fsrgan", "sr3", "pulse"], width=width)
    assert figure.get_figwidth() == width
    for task, panel in zip((1, 2), figure.axes, strict=True):
        own = rates[rates["task"] == task].set_index("model").loc[["fsrgan", "sr3", "pulse"]]
        assert [label.get_text() for label in panel.get_yticklabels()] == list(own.index) or task == 2
        np.testing.assert_allclose([bar.get_width() for bar in panel.patches], 100 * own["fool_rate"])
        np.testing.assert_allclose(spans(panel, axis=0), 100 * own[["ci_low", "ci_high"]].to_numpy())
        shown = [text.get_text() for text in panel.texts]
        assert shown == [*(f"{100 * rate:.1f}" for rate in own["fool_rate"]), CHANCE]
        low, high = own["n"].min(), own["n"].max()
        assert panel.get_title().endswith(f"\n{low} to {high} answers a model") and low < high
    with pytest.raises(DataError, match='unknown model "sr4"; did you mean "sr3"'):
        figures.fool_rates(rates, models=["sr4"])


def test_fool_rates_that_cannot_be_estimated_are_said(kept):
    rates = fool_rates(kept).assign(ci_low=np.nan, ci_high=np.nan)
    rates.loc[0, "fool_rate"] = np.nan
    panel = figures.fool_rates(rates).axes[0]
    shown = [text.get_text() for text in panel.texts]
    assert "not estimable" in shown and len(panel.patches) == 2
    assert [text.split(", ")[-1] for text in shown[:2]] == ["no interval"] * 2  # which no bare number could say


def test_nothing_estimable_is_drawn_without_a_warning(kept):
    nothing = dict.fromkeys(["fool_rate", "ci_low", "ci_high"], np.nan)
    panel = figures.fool_rates(fool_rates(kept).assign(**nothing)).axes[0]
    assert [text.get_text() for text in panel.texts] == [*["not estimable"] * 3, CHANCE]
    figures.by_viewing_time(fool_rates(kept, ["task", "model", "exposure_ms"]).assign(**nothing))


CHANCE = "50 %: people cannot tell"


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def filled(panel) -> dict[str, set[str]]:
    """By marker, the faces of the points of one look."""
    faces = {}
    for line in panel.lines:
        if line.get_marker() not in ("None", "", "|", "_") and len(line.get_xdata()):
            faces.setdefault(line.get_marker(), set()).add(to_hex(line.get_markerfacecolor()))
    return faces


def test_points_without_an_interval_are_hollow(kept):
    rates = fool_rates(kept, ["task", "model", "exposure_ms"])
    rates.loc[rates["model"] == "sr3", ["ci_low", "ci_high"]] = np.nan
    figure = figures.by_viewing_time(rates)
    assert legend(figure) == ["sr3", "pulse", "fsrgan", CHANCE, "hollow: no interval"]
    assert sorted("#ffffff" in faces for faces in filled(figure.axes[0]).values()).count(True) == 1
    assert "hollow: no interval" not in legend(figures.by_viewing_time(rates[rates["model"] != "sr3"]))
    points = fool_rates(kept).rename(columns={"model": "method"}).assign(metric="psnr", higher_is_better=True)
    points = points.assign(value=points["fool_rate"], label="PSNR (RGB)")
    figure = figures.metric_against_people(points.assign(ci_low=np.nan, ci_high=np.nan))
    assert figure.axes[0].get_xlabel() == "PSNR (RGB)\N{NO-BREAK SPACE}↑" and figure.axes[0].get_title().endswith(
        "answers a point"
    )
    assert legend(figure)[-2:] == [CHANCE, "hollow: no interval"]


def test_a_model_of_the_second_task_alone_is_in_the_legend(two_tasks):
    rates = fool_rates(two_tasks, ["task", "model", "exposure_ms"])
    rates = rates[(rates["task"] == 2) | (rates["model"] != "sr3")]
    assert sorted(legend(figures.by_viewing_time(rates))) == [CHANCE, "fsrgan", "pulse", "sr3"]


def test_models_are_called_by_their_labels(kept, study):
    labels = {"sr3": "SR3 (ours)", "fsrgan": "FSRGAN", "pulse": "PULSE"}
    figures.keep_colours(labels)
    rates = fool_rates(kept)
    names = [label.get_text() for label in figures.fool_rates(rates, models=["sr3", "pulse"]).axes[0].get_yticklabels()]
    assert names == ["SR3 (ours)", "PULSE"]
    points = rates.rename(columns={"model": "method"}).assign(metric="psnr", higher_is_better=True, value=[1, 2, 3])
    time = figures.by_viewing_time(fool_rates(kept, ["task", "model", "exposure_ms"]))
    for figure in (time, figures.metric_against_people(points)):
        assert set(legend(figure)) == {*labels.values(), CHANCE}
    names = [label.get_text() for label in figures.response_times(study).axes[0].get_yticklabels()]
    assert names == ["FSRGAN", "PULSE", "SR3 (ours)"]
    figures.keep_colours([])  # names again
    assert figures.fool_rates(rates, models="sr3").axes[0].get_yticklabels()[0].get_text() == "sr3"


NAMES = [f"a model of the paper with a long name, variant {i}" for i in range(10)]


@pytest.mark.parametrize("width", [figures.SINGLE, figures.DOUBLE])
def test_many_long_names_fit_and_look_different(kept, width):
    one = fool_rates(kept).head(1)
    rates = pd.concat([one.assign(model=name, exposure_ms=ms) for name in NAMES for ms in (3000, 6000)])
    points = rates.rename(columns={"model": "method"}).assign(metric="psnr", higher_is_better=True)
    points["value"] = points["fool_rate"]
    steps = points.assign(steps=points["exposure_ms"])
    for figure in (
        figures.by_viewing_time(rates, width=width),
        figures.metric_against_people(points.drop_duplicates("method"), width=width),
        figures.fid_against_steps(steps, width=width),
    ):
        figure.draw_without_rendering()
        bounds = figure.get_tightbbox()
        assert bounds.x0 >= -0.02 and bounds.x1 <= width + 0.02 and bounds.y1 <= figure.get_figheight() + 0.02
        assert figure.axes[0].get_window_extent().height > 60 * figure.dpi / 72
        lines = [container.lines[0] for container in figure.axes[0].containers]
        assert len({(to_hex(line.get_color()), line.get_marker()) for line in lines}) == len(NAMES)


def test_by_viewing_time(two_tasks):
    rates = fool_rates(two_tasks, ["task", "model", "exposure_ms"])
    figure = figures.by_viewing_time(rates, models=["sr3", "pulse", "fsrgan"])
    for task, panel in zip((1, 2), figure.axes, strict=True):
        for model, drawn in zip(("sr3", "pulse", "fsrgan"), points(panel), strict=True):
            own = rates[(rates["task"] == task) & (rates["model"] == model)]
            np.testing.assert_allclose(drawn[:, 0], [3, 6], rtol=0.03)
            np.testing.assert_allclose(drawn[:, 1], 100 * own["fool_rate"])
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["3", "6"]


@pytest.fixture(scope="module")
def choices():
    liked = {"sr3": 0.8, "esrgan": 0.3, "bicubic": -0.7}
    first = simulate_choices(liked, subjects=12, images=30, trials=20, seed=1)
    other = simulate_choices({name: -score for name, score in liked.items()}, subjects=12, images=30, trials=20)
    return pd.concat([first.assign(criterion="sharper"), other.assign(criterion="faithful")])


@pytest.mark.parametrize("width", [figures.SINGLE, figures.DOUBLE])
def test_preference_scores(choices, width):
    scores = bradley_terry(choices)
    figure = figures.preference_scores(scores, models=["sr3", "bicubic", "esrgan"], width=width)
    for criterion, panel in zip(("faithful", "sharper"), figure.axes, strict=True):
        own = scores[scores["criterion"] == criterion].set_index("model").loc[["sr3", "bicubic", "esrgan"]]
        np.testing.assert_allclose([drawn[0] for drawn in points(panel)], np.c_[own["score"], range(3)])
        np.testing.assert_allclose(spans(panel, axis=0), own[["ci_low", "ci_high"]])
        ranks = [
            f"{low}–{high}" if low < high else f"{low}"
            for low, high in zip(own["rank_low"], own["rank_high"], strict=True)
        ]
        assert [text.get_text() for text in panel.texts] == ranks
        assert panel.get_title() == f"{criterion}, 240 choices"
    none = figures.preference_scores(scores.assign(score=np.nan)).axes[0]
    assert [text.get_text() for text in none.texts] == ["not estimable"] * 3


@pytest.mark.parametrize("width", [figures.SINGLE, figures.DOUBLE])
def test_win_matrix(choices, width):
    rates = pair_rates(choices[choices["criterion"] == "sharper"])
    panel = figures.win_matrix(rates.iloc[:2], width=width).axes[0]
    order = list(win_matrix(rates.iloc[:2]).index)
    assert [label.get_text() for label in panel.get_yticklabels()] == [f"{m} ({i})" for i, m in enumerate(order, 1)]
    drawn = {text.get_position(): text.get_text() for text in panel.texts}
    assert len(drawn) == 4  # two pairs, both ways
    for row in rates.iloc[:2].itertuples():
        a, b = order.index(row.model_a), order.index(row.model_b)
        assert (drawn[b, a], drawn[a, b]) == (f"{100 * row.win_rate:.0f}", f"{100 - 100 * row.win_rate:.0f}")
    named = dict(zip(order, NAMES, strict=False))
    figure = figures.win_matrix(rates.replace(named), width=width)
    figure.draw_without_rendering()
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in itertools.pairwise(labels))


def test_per_image_extremes(kept, tmp_path):
    rates = image_rates(kept[kept["model"] == "sr3"])
    ends = extremes(rates, count=2)

    def pictures(model, image_id):
        path = tmp_path / f"{model}_{image_id}.png"
        Image.new("RGB", (8, 8), (int(image_id), 0, 0)).save(path)
        return path

    figure = figures.per_image_extremes(ends, pictures, lambda model, image_id: np.full((8, 8, 3), int(image_id) / 255))
    order = [*rates["image_id"].head(2), *rates["image_id"].tail(2)]  # from the lowest to the highest
    outputs, reals = figure.axes[:4], figure.axes[4:]
    assert [int(panel.images[0].get_array()[0, 0, 0]) for panel in outputs] == [int(i) for i in order]
    np.testing.assert_allclose([panel.images[0].get_array()[0, 0, 0] * 255 for panel in reals], [int(i) for i in order])
    for panel, image_id in zip(outputs, order, strict=True):
        row = rates.set_index("image_id").loc[image_id]
        assert (
            f"({row['k']}/{row['n']})" in panel.get_title()
            and f"shrunk {100 * row['shrunk']:.0f} %" in panel.get_title()
        )
    with pytest.raises(DataError, match=r"none.png: not a readable picture"):
        figures.per_image_extremes(ends, lambda model, image_id: tmp_path / "none.png")
    with pytest.raises(DataError, match="8 pictures are too many for 3.3 inches: 4 fit"):
        figures.per_image_extremes(extremes(rates, count=4), pictures)
    with pytest.raises(DataError, match="several models or tasks"):
        figures.per_image_extremes(extremes(image_rates(kept)), pictures)


def test_fid_against_steps():
    scores = pd.DataFrame({"method": "sr3", "steps": [256, 4, 16], "value": [11.0, 30.0, 15.0]})
    panel = figures.fid_against_steps(scores).axes[0]
    np.testing.assert_allclose(points(panel)[0], [[4, 30], [16, 15], [256, 11]])
    assert [label.get_text() for label in panel.get_xticklabels()] == ["4", "16", "256"]
    assert figures.fid_against_steps(scores.assign(n=256)).axes[0].get_title() == "256 images a point"
    figure = figures.fid_against_steps(scores, label="FD, EfficientNet-Lite0 (lower is better)")
    figure.draw_without_rendering()
    assert 0 <= figure.get_tightbbox().y0 < figure.get_tightbbox().y1 <= figure.get_figheight()
    scores = scores.assign(ci_low=scores["value"] - 1, ci_high=scores["value"] + 2)
    np.testing.assert_allclose(spans(figures.fid_against_steps(scores).axes[0], 1), [[29, 32], [14, 17], [10, 13]])


def test_metric_against_people(kept):
    rates = fool_rates(kept).rename(columns={"model": "method"})
    drawn = pd.concat(
        [
            rates.assign(metric="psnr", higher_is_better=True, value=[20.0, 22.0, 25.0]),
            rates.assign(metric="fid", higher_is_better=False, value=[60.0, 30.0, 10.0]),
        ]
    )
    psnr, fid = figures.metric_against_people(drawn).axes
    np.testing.assert_allclose(np.concatenate(points(psnr)), np.column_stack([[20, 22, 25], 100 * rates["fool_rate"]]))
    np.testing.assert_allclose(spans(fid, 1), 100 * rates[["ci_low", "ci_high"]])
    assert fid.xaxis_inverted() and not psnr.xaxis_inverted()  # better is to the right
    with pytest.raises(DataError, match="several tasks"):
        figures.metric_against_people(pd.concat([drawn, drawn.assign(task=2)]))
    with pytest.raises(DataError, match="several data sets: choose one"):
        figures.metric_against_people(pd.concat([drawn.assign(dataset=name) for name in ("Set5", "Set14")]))


def test_response_times(study):
    panel = figures.response_times(study).axes[0]
    tests = study[study["kind"] == "test"]
    boxes = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in panel.patches]
    expected = tests.groupby("model")["rt_ms"].quantile([0.25, 0.75]).unstack() / 1000
    np.testing.assert_allclose(boxes, expected)
    medians = [f"{m / 1000:.2f}" for m in tests.groupby("model")["rt_ms"].median()]
    assert [text.get_text() for text in panel.texts] == [*medians, "limit 0.2 s"]
    assert panel.get_title() == f"{len(tests) // 3} answers a model"


def test_response_times_show_the_limit_of_the_rules(study):
    panel = figures.response_times(study, Rules(min_median_rt_ms=400)).axes[0]
    assert any(line.get_linestyle() == ":" and list(line.get_xdata()) == [0.4, 0.4] for line in panel.lines)


def test_timing_quality(study):
    above, below = figures.timing_quality(study).axes
    tests = study[study["kind"] == "test"]
    assert sum(bar.get_height() for bar in above.patches) == len(tests) and above.get_ylim()[0] < 1
    within = ((tests["exposure_actual_ms"] - tests["exposure_ms"]).abs() <= 50).mean()
    assert f"{100 * within:.1f} % within ±50 ms" in above.get_title()
    shares = 100 * (1 - tests.groupby("subject")["timing_ok"].mean())
    np.testing.assert_allclose([bar.get_height() for bar in below.patches], sorted(shares, reverse=True))


@pytest.mark.parametrize("width", [figures.SINGLE, figures.DOUBLE])
def test_psychometric_curves(width):
    """Curves, thresholds and intervals are those of the table; what lies beyond the axis has an arrow."""
    kind = {"subjects": 12, "images": 40, "trials": 20, "catch": 0, "practice": 0}
    rates = {"sr3": (0.47, 0.4, 0.3, 0.1), NAMES[0]: (0.45, 0.45, 0.45, 0.45)}
    parts = [simulate(rates, exposures=(500, 1000, 2000, 4000), task=t, study=f"s{t}", seed=t, **kind) for t in (1, 2)]
    answers = pd.concat(parts)
    found, rates = thresholds(answers), fool_rates(answers, ["task", "model", "exposure_ms"])
    figure = figures.psychometric_curves(rates, found, models=["sr3", NAMES[0]], width=width)
    for task, panel in zip((1, 2), figure.axes, strict=True):
        own, fit = rates[rates["task"] == task], found[found["task"] == task].set_index("model").loc["sr3"]
        shown = own[own["model"] == "sr3"]
        np.testing.assert_allclose(points(panel)[0][:, 1], 100 - 100 * shown["fool_rate"])
        right = 100 - 100 * shown[["ci_high", "ci_low"]].to_numpy()
        np.testing.assert_allclose(spans(panel, axis=1)[: len(shown)], right)
        curve = next(line.get_xydata() for line in panel.lines if len(line.get_xdata()) == 200)
        assert np.interp(fit["threshold"] / 1000, *curve.T) == pytest.approx(75, abs=0.1)
        below = [line for line in panel.lines if len(set(line.get_ydata())) == 1 and line.get_ydata()[0] < right.min()]
        first = [line for line in below if line.get_ydata()[0] == max(line.get_ydata()[0] for line in below)]
        ends = [line.get_xdata()[0] for line in first if line.get_marker() in ("|", "<", ">")]
        np.testing.assert_allclose(ends, np.clip(fit[["ci_low", "ci_high"]].astype(float) / 1000, *panel.get_xlim()))
    assert {"<", ">"} <= {line.get_marker() for panel in figure.axes for line in panel.lines}
    assert [text.replace("\n", " ") for text in legend(figure)][:3] == ["sr3", NAMES[0], CHANCE]
    assert_inside(figure, width)
    with pytest.raises(DataError, match="thresholds: 2 rows for task 1, model sr3: choose one"):
        figures.psychometric_curves(rates, pd.concat([found, found.iloc[[list(found["model"]).index("sr3")]]]))


@pytest.mark.parametrize("width", [figures.SINGLE, figures.DOUBLE])
def test_order_effects(two_tasks, width):
    effects = order_effects(two_tasks)
    order = ["sr3", "pulse", "fsrgan"]
    figure = figures.order_effects(effects, models=order, width=width)
    for task, panel in zip((1, 2), figure.axes, strict=True):
        own = effects[effects["task"] == task].set_index("model").loc[order]
        np.testing.assert_allclose([drawn[0] for drawn in points(panel)], np.c_[100 * own["slope"], range(3)])
        np.testing.assert_allclose(spans(panel, axis=0), 100 * own[["ci_low", "ci_high"]])
        assert panel.texts[-1].get_text() == "0: no change"
    assert_inside(figure, width)
    none = effects.assign(ci_low=np.nan, ci_high=np.nan).head(2)
    none.loc[none.index[0], "slope"] = np.nan
    texts = [text.get_text() for text in figures.order_effects(none).axes[0].texts]
    assert texts[0] == "not estimable" and texts[1].endswith(", no interval")


@pytest.mark.parametrize("width", [figures.SINGLE, figures.DOUBLE])
def test_odds_ratios(width):
    fit = MixedModel("model", ["sr3", *NAMES[:2]], [40, 50, 60], LOGITS, 0.04 * np.eye(3), {}, 20.0, "")
    contrasts = fit.contrasts()
    figure = figures.odds_ratios(fit, width=width)
    panel = figure.axes[0]
    np.testing.assert_allclose([drawn[0] for drawn in points(panel)], np.c_[contrasts["odds_ratio"], range(3)])
    np.testing.assert_allclose(spans(panel, axis=0), np.exp(contrasts[["ci_low", "ci_high"]]))
    assert panel.get_xscale() == "log" and panel.get_title() == "40 to 60 answers a model"
    assert [text.get_text() for text in panel.texts] == ["3.32", "2.01", "0.61", "1: no difference"]
    assert_inside(figure, width)
    alone = MixedModel("model", ["sr3"], [40], LOGITS[:1], np.eye(1), {}, 20.0, "")
    with pytest.raises(DataError, match="there are no odds ratios to draw: the model has one level"):
        figures.odds_ratios(alone)


LOGITS = np.array([0.2, -1.0, -0.5])


def assert_inside(figure, width) -> None:
    """Nothing sticks out, and names leave room for the panels."""
    figure.draw_without_rendering()
    bounds = figure.get_tightbbox()
    assert bounds.x0 >= -0.02 and bounds.x1 <= width + 0.02
    assert bounds.y0 >= -0.02 and bounds.y1 <= figure.get_figheight() + 0.02
    assert figure.axes[0].get_window_extent().width > 0.25 * figure.bbox.width  # two may stand side by side


def drawn(kept, study):
    rates = fool_rates(kept)
    over_time = fool_rates(kept, ["task", "model", "exposure_ms"])
    ends = extremes(image_rates(kept[kept["model"] == "sr3"]))
    steps = pd.DataFrame({"method": "sr3", "steps": [4, 8], "value": [20.0, 12.0]})
    metric = rates.rename(columns={"model": "method"}).assign(
        metric="psnr", higher_is_better=True, value=[1.0, 2.0, 3.0]
    )
    return {
        "fool_rates": figures.fool_rates(rates),
        "by_viewing_time": figures.by_viewing_time(over_time),
        "per_image_extremes": figures.per_image_extremes(ends, lambda model, image: np.zeros((8, 8, 3))),
        "fid_against_steps": figures.fid_against_steps(steps),
        "metric_against_people": figures.metric_against_people(metric, width=figures.SINGLE),
        "response_times": figures.response_times(study),
        "timing_quality": figures.timing_quality(study),
    }


def test_every_figure_fits_a_column_and_can_be_read(kept, study):
    for name, figure in drawn(kept, study).items():
        assert figure.get_figwidth() == figures.SINGLE, name
        figure.draw_without_rendering()
        sizes = [text.get_fontsize() for text in figure.findobj(lambda artist: hasattr(artist, "get_fontsize"))]
        assert min(sizes) >= 7, name
        bounds = figure.get_tightbbox()
        assert bounds.x0 >= -0.02 and bounds.x1 <= figures.SINGLE + 0.02, name
        assert bounds.y0 >= -0.02 and bounds.y1 <= figure.get_figheight() + 0.02, name


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_files_are_the_same_each_time(kept, tmp_path, suffix):
    first, again = (
        figures.save(figures.fool_rates(fool_rates(kept)), tmp_path / "new" / f"{name}.{suffix}") for name in ("a", "b")
    )
    assert first.read_bytes() == again.read_bytes() and first.stat().st_size > 1000


def test_other_formats_are_refused(kept, tmp_path):
    with pytest.raises(DataError, match="figures are saved as .svg, .pdf, .png"):
        figures.save(figures.fool_rates(fool_rates(kept)), tmp_path / "a.gif")


def test_colours_are_those_that_the_colour_blind_can_tell_apart(kept):
    okabe_ito = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7"}
    panel = figures.fool_rates(fool_rates(kept)).axes[0]
    colours = {to_hex(bar.get_facecolor()) for bar in panel.patches}
    assert len(colours) == 3 and colours <= okabe_ito


def colours(panel) -> list[str]:
    return [to_hex(bar.get_facecolor()) for bar in panel.patches]


def test_a_model_keeps_its_colour(kept, study):
    figures.keep_colours(["sr3", "fsrgan", "pulse"])
    blue, red, green = "#0072b2", "#d55e00", "#009e73"
    rates = fool_rates(kept)
    both = figures.fool_rates(rates, models=["pulse", "sr3"]).axes[0]
    assert colours(both) == [green, blue] and colours(figures.fool_rates(rates, models="pulse").axes[0]) == [green]
    assert colours(figures.response_times(study).axes[0]) == [red, green, blue]  # in alphabetical order
    over_time = fool_rates(kept[kept["model"] == "fsrgan"], ["task", "model", "exposure_ms"])
    line = figures.by_viewing_time(over_time).axes[0].containers[0].lines[0]
    assert to_hex(line.get_color()) == red


def test_new_models_take_other_colours_and_those_of_one_figure_differ(kept):
    one = fool_rates(kept).head(1)

    def drawn_alone(name):
        return colours(figures.fool_rates(one.assign(model=name)).axes[0])[0]

    figures.keep_colours([])
    seen = [drawn_alone(f"m{i}") for i in range(9)]  # two more than colours
    assert len(set(seen[:7])) == 7 and [drawn_alone(f"m{i}") for i in range(9)] == seen
    together = figures.fool_rates(pd.concat([one.assign(model=f"m{i}") for i in (0, 1, 7, 8)]))
    assert len(set(colours(together.axes[0]))) == 4


def test_rows_that_would_hide_each_other_are_refused(study, kept):
    with pytest.raises(DataError, match="3 rows for task 1, model fsrgan of different analysis: choose one"):
        figures.fool_rates(study_results(study)[0])
    over_time = fool_rates(kept, ["task", "model", "exposure_ms"])
    with pytest.raises(DataError, match=r"different exposure_ms: choose one \(by_viewing_time draws several\)"):
        figures.fool_rates(over_time)
    by = ["task", "model", "exposure_ms"]
    with pytest.raises(DataError, match="exposure_ms 3000 of different analysis: choose one"):
        figures.by_viewing_time(study_results(study, by)[0])
    primary = study_results(study)[0].query("analysis == 'primary'")
    assert len(figures.fool_rates(primary).axes[0].patches) == 3
    steps = pd.DataFrame({"method": "sr3", "steps": [4, 4], "value": [1.0, 2.0]})
    with pytest.raises(DataError, match="scores: 2 rows for method sr3, steps 4: choose one"):
        figures.fid_against_steps(steps)


LONG = "my own model of the paper, second variant, 50 steps a"


@pytest.mark.parametrize("width", [figures.SINGLE, figures.DOUBLE])
@pytest.mark.parametrize("name", [LONG, LONG.replace(" ", "_").replace(",", "_")])
def test_long_names_leave_room_for_the_plot(kept, study, width, name):
    long = {"sr3": name}
    rates = fool_rates(kept).replace({"model": long})
    over_time = fool_rates(kept, ["task", "model", "exposure_ms"]).replace({"model": long})
    steps = pd.DataFrame({"method": ["sr3", name], "steps": [4, 8], "value": [20.0, 12.0]})
    for figure in (
        figures.fool_rates(rates, width=width),
        figures.response_times(study.replace({"model": long}), width=width),
        figures.by_viewing_time(over_time, width=width),
        figures.fid_against_steps(steps, width=width),
    ):
        figure.draw_without_rendering()
        bounds = figure.get_tightbbox()
        assert bounds.x0 >= -0.02 and bounds.x1 <= width + 0.02 and bounds.y1 <= figure.get_figheight() + 0.02
        panel = figure.axes[0]
        assert panel.get_window_extent().width > 0.5 * figure.bbox.width
        ticks = [label.get_window_extent() for label in panel.get_yticklabels() if label.get_text()]
        for one, other in itertools.pairwise(sorted(ticks, key=lambda box: box.y0)):
            assert one.y1 <= other.y0


def test_nothing_to_draw(study, kept):
    for draw, table in (
        (figures.fool_rates, fool_rates(kept).head(0)),
        (figures.response_times, study.head(0)),
        (figures.timing_quality, study.head(0)),
    ):
        with pytest.raises(DataError, match="there are no"):
            draw(table)


CORRELATED = pd.DataFrame(
    [
        ("sr3", "psnr", 40, -0.2, -0.5, 0.1, ""),
        ("sr3", "lpips", 40, 0.5, 0.3, 0.6, ""),
        ("pulse", "psnr", 38, np.nan, np.nan, np.nan, "not estimable: all values are equal"),
        ("pulse", "lpips", 38, 0.4, 0.1, 0.5, ""),
    ],
    columns=["model", "metric", "images", "spearman", "spearman_low", "spearman_high", "note"],
)


@pytest.mark.parametrize("width", [figures.SINGLE, figures.DOUBLE])
def test_correlations(width):
    ceilings = pd.DataFrame({"model": ["sr3", "pulse"], "ceiling": [0.8, np.nan]})
    ceilings = ceilings.assign(ceiling_low=[0.7, np.nan], ceiling_high=[0.9, np.nan])
    figure = figures.correlations(CORRELATED, ceilings, names={"psnr": "PSNR", "lpips": NAMES[0]}, width=width)
    sr3, pulse = figure.axes
    assert [label.get_text().replace("\n", " ") for label in sr3.get_yticklabels()] == [NAMES[0], "PSNR"]
    np.testing.assert_allclose(np.concatenate(points(sr3)), [[0.5, 0], [-0.2, 1]])
    np.testing.assert_allclose(spans(sr3, axis=0), [[0.3, 0.6], [-0.5, 0.1]])
    assert [panel.get_title() for panel in figure.axes] == ["sr3\n40 images", "pulse\n38 images"]
    assert [text.get_text() for text in pulse.texts] == ["not estimable"] and not sr3.texts
    assert [list(line.get_xdata()) for line in sr3.lines if line.get_linestyle() == ":"] == [[0.8, 0.8]]
    assert not [line for line in pulse.lines if line.get_linestyle() == ":"] and not pulse.patches
    assert legend(figure) == ["noise ceiling, with 95 % interval"]
    figure.draw_without_rendering()
    bounds = figure.get_tightbbox()
    assert bounds.x0 >= -0.02 and bounds.x1 <= width + 0.02 and bounds.y1 <= figure.get_figheight() + 0.02
    over_methods = CORRELATED.head(2).drop(columns="model").rename(columns={"images": "methods"})
    assert figures.correlations(over_methods).axes[0].get_title() == "40 methods"
    with pytest.raises(DataError, match="2 rows for one panel: choose one task"):
        figures.correlations(CORRELATED, pd.concat([ceilings, ceilings]))
    with pytest.raises(DataError, match="correlations: 2 rows for model sr3, metric psnr"):
        figures.correlations(pd.concat([CORRELATED, CORRELATED]))
