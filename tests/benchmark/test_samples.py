"""samples = K of a method: its files, seeds and resume, the rows of the table, figures, packs, and what is refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tomli_w
import torch
from click.testing import CliRunner
from PIL import Image

from benchmark import main
from sr3eval.benchmark import run
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.figure import Window, write
from sr3eval.benchmark.make import make
from sr3eval.benchmark.notes import notes
from sr3eval.benchmark.plan import plan
from sr3eval.benchmark.progress import silent
from sr3eval.benchmark.score import Scorer
from sr3eval.errors import UserError
from sr3eval.folders import stable_hash
from sr3eval.images import save

IDS = [f"{group}/{index}" for group in "ab" for index in range(2)]
K = 3
TEXTS = ("source", "inputs", "dataset", "method_notes", "method_warning")  # of results, empty here
NOISY = """
import torch
class Noisy:
    name, scale, stochastic = "noisy", 4, True
    def upscale(self, lr, seeds):
        open(__file__ + ".log", "a").write("".join(f"{seed}\\n" for seed in dict.fromkeys(seeds)))
        sr = lr.repeat_interleave(4, -1).repeat_interleave(4, -2)
        noise = [torch.randn(sr.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]
        return (sr + 0.05 * torch.stack(noise)).clamp(0, 1)
class Silent(Noisy):
    stochastic = False
def build(): return Noisy()
def silent(): return Silent()
"""


def write_images(folder):
    generator = torch.Generator().manual_seed(0)
    for image_id in IDS:
        save(folder / "images" / f"{image_id}.png", torch.rand(3, 64, 64, generator=generator))
    (folder / "mine.py").write_text(NOISY)
    return folder


@pytest.fixture
def world(tmp_path, one_thread):
    return write_images(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_thread):
    """The folder of a run with three samples."""
    folder = write_images(tmp_path_factory.mktemp("samples"))
    run(config(folder), folder / "run", folder / "cache")
    return folder / "run"


def table(run):
    return pd.read_csv(run / "results.csv").set_index(["method", "metric"])


def config(world, samples=K, **changes):
    mine = {"name": "mine", "python": f"{world / 'mine.py'}:build"} | ({"samples": samples} if samples != 1 else {})
    return {
        "task": "photos_16_64",
        "batch_size": 2,
        "metrics": ["psnr", "consistency", "diversity"] if samples > 1 else ["psnr", "consistency"],
        "data": {"images": str(world / "images"), "group": "parent"},
        "method": [mine, {"kind": "bicubic"}],
    } | changes


def start(world, out="run", cache="cache", **changes):
    return plan(RunConfig.parse(config(world, **changes)), world / out, world / cache)


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def log(world):
    """The seeds of the batches that the method made, in order; each batch is made twice the first time, for a check."""
    path = world / "mine.py.log"
    found = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return [int(seed) for seed in found]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(float)


def test_the_first_sample_is_the_output_without_samples(world):
    """The same bytes, scores and cache: a run without samples makes what it made before there were any."""
    run(config(world, samples=1), world / "one", world / "cache")
    assert set(log(world)) == {stable_hash(0, image_id) for image_id in IDS}
    run(config(world), world / "run", world / "cache")
    later = {stable_hash(0, image_id, number) for image_id in IDS for number in (2, 3)}
    assert set(log(world)) == later  # nothing of the first is made again
    images = world / "run" / "images"
    assert files(images / "mine") == files(world / "one" / "images" / "mine")
    assert sorted(path.name for path in images.iterdir()) == ["_hr", "_lr", "bicubic", "mine", *MORE, "mine@mean"]
    pictures = [files(images / folder) for folder in ("mine", *MORE)]
    assert all(len({picture[name] for picture in pictures}) == K for name in pictures[0])
    one, several = (pd.read_csv(world / out / "per_image.csv") for out in ("one", "run"))
    again = several[(several["method"] == "mine") & (several["metric"] != "diversity")].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, one[one["method"] == "mine"].reset_index(drop=True))


MORE = ["mine@2", "mine@3"]


def test_more_and_fewer_samples_share_the_cache(world):
    run(config(world, samples=4), world / "four", world / "cache")
    log(world)
    run(config(world, samples=2), world / "two", world / "cache")
    assert not log(world)
    run(config(world, samples=5), world / "five", world / "cache")
    assert set(log(world)) == {stable_hash(0, image_id, 5) for image_id in IDS}
    for folder in ("mine", "mine@2"):
        ours = [files(world / out / "images" / folder) for out in ("two", "four", "five")]
        assert ours[0] == ours[1] == ours[2] and ours[0]


def test_a_stopped_run_resumes_to_the_same_bytes(world):
    run(config(world), world / "whole", world / "cache")

    def stop(stage, done, _total):
        if stage == "mine, sample 2 of 3" and done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(start(world, cache="other"), stop)
    assert len(files(world / "run" / "images" / "mine@2")) == 2
    log(world)
    run(config(world), world / "run", world / "other")
    made = log(world)
    assert len(set(made)) == 6 and stable_hash(0, IDS[0]) not in made  # two of sample 2, four of sample 3
    assert files(world / "run") == files(world / "whole")
    before = files(world / "run")
    run(config(world), world / "run", world / "other")
    assert files(world / "run") == before and not log(world)


def samples_of(run, image_id):
    """[K, H, W, 3] in levels."""
    return np.stack([pixels(run / "images" / folder / f"{image_id}.png") for folder in ("mine", *MORE)])


def psnr(pictures, run, image_id):
    hr = pixels(run / "images" / "_hr" / f"{image_id}.png")
    return 10 * np.log10(255**2 / ((pictures - hr) ** 2).mean(axis=(-3, -2, -1)))


def test_the_mean_is_that_of_the_written_samples_and_scored_as_a_picture(finished):
    scores = []
    for image_id in IDS:
        mean = pixels(finished / "images" / "mine@mean" / f"{image_id}.png")
        assert (mean == np.round(samples_of(finished, image_id).mean(axis=0))).all()
        scores.append(psnr(mean, finished, image_id))
    assert table(finished).loc[("mine (mean of 3)", "psnr"), "value"] == pytest.approx(np.mean(scores), rel=1e-6)


def test_rows_of_the_table(finished):
    results = table(finished)
    four = ["mine", "mine (mean of 3)", "mine (best of 3)", "bicubic"]
    rows = [(row, metric) for metric in ("psnr", "consistency") for row in four] + [("mine", "diversity")]
    assert list(results.index) == rows
    scores = np.array([psnr(samples_of(finished, image_id), finished, image_id) for image_id in IDS])
    assert results.loc[("mine", "psnr"), "value"] == pytest.approx(scores[:, 0].mean(), rel=1e-6)
    assert results.loc[("mine (best of 3)", "psnr"), "value"] == pytest.approx(scores.max(axis=1).mean(), rel=1e-6)
    deviations = [samples_of(finished, image_id).std(axis=0, ddof=1).mean() for image_id in IDS]
    row = results.loc[("mine", "diversity")]
    assert row["value"] == pytest.approx(np.mean(deviations), rel=1e-5)
    assert row["ci_low"] < row["value"] < row["ci_high"]
    text = (finished / "results.md").read_text()
    assert "mine (mean of 3): pixel mean of 3 samples of mine, of 8-bit pictures, rounded." in text
    assert "mine (best of 3): of 3 samples of mine the best by each metric" in text and "an oracle" in text
    assert "the first of 3 samples of each input" in text


def test_scores_of_every_sample_are_kept_and_say_how_much_is_noise(finished):
    draws = pd.read_csv(finished / "draw_scores.csv")
    scores = np.array([psnr(samples_of(finished, image_id), finished, image_id) for image_id in IDS])
    found = draws[draws["metric"] == "psnr"].pivot(index="image_id", columns="sample", values="value").loc[IDS]
    np.testing.assert_allclose(found, scores, rtol=1e-6)
    assert set(draws["metric"]) == {"psnr", "consistency"} and set(draws["seed"]) == {0}
    results, noise = table(finished), np.sqrt(scores.var(axis=1, ddof=1).sum()) / len(IDS)  # of the first samples' mean
    assert results.loc[("mine", "psnr"), "seed_se"] == pytest.approx(noise, rel=1e-6)
    assert results["seed_se"].notna().sum() == 2
    alike = results.reset_index().query("metric == 'psnr'").assign(**dict.fromkeys(TEXTS, ""))
    for apart, noted in ((1.9 * noise, True), (2.0 * noise, False)):
        alike.loc[alike["method"] == "bicubic", "delta_to_best"] = -apart
        best = alike.assign(best=alike["method"] == "mine")
        lines = [line for line in notes(best) if line.startswith("PSNR: bicubic differs from mine")]
        assert len(lines) == noted and all(f"({1.96 * noise:.2f}, with 95 %)" in line for line in lines)


def test_the_best_of_samples_is_no_competitor(world):
    """HR's noise is all that the samples have: the best of them wins by a little, and is neither bold nor tested."""
    alone = [config(world)["method"][0]]
    results = run(config(world, method=alone, metrics=["consistency"]), world / "run").set_index("method")
    values = results["value"]
    assert values["mine (best of 3)"] < values["mine"]
    assert not results.loc["mine (best of 3)", "best"] and results["best"].sum() == 1
    assert np.isnan(results.loc["mine (best of 3)", "p_value"]) and not np.isnan(results.loc["mine", "p_value"])


def test_metrics_of_sets_have_no_best(world, monkeypatch):
    from sr3eval.features import networks

    monkeypatch.setattr(networks.Network, "look", lambda _, x: networks.Features(x[:, :, ::16, ::16].flatten(1), None))
    results = run(config(world, metrics=["fd_efficientnet_lite0"]), world / "run")
    assert list(results["method"]) == ["mine", "mine (mean of 3)", "bicubic"]


def test_scores_of_samples_stand_only_for_the_same_samples(finished, tmp_path):
    """An exchanged second sample is another score for what compares samples, and none for what sees the first alone."""
    shutil.copytree(finished, tmp_path / "run")
    current = plan(RunConfig.parse(config(finished.parent)), tmp_path / "run", tmp_path / "cache")
    first, _, best, _ = current.config.rows

    def keys():
        scorer = Scorer(current, "", current.images, silent)
        return {row.name: scorer.keys(row) for row in (first, best)}

    before = keys()
    save(tmp_path / "run" / "images" / "mine@2" / "a" / "0.png", torch.zeros(3, 64, 64))
    after = keys()
    changed = {(row, metric) for row, of in before.items() for metric in of if of[metric] != after[row][metric]}
    of_best = {(best.name, "psnr"), (best.name, "consistency")}
    assert changed == {("mine", "diversity"), *of_best}


def test_seeds_and_samples_together(world):
    method = [config(world)["method"][0] | {"seeds": [0, 1], "samples": 2}]
    results = run(config(world, method=method, metrics=["psnr", "diversity"]), world / "run").set_index(
        ["method", "metric"]
    )
    folders = sorted(path.name for path in (world / "run" / "images").iterdir())
    both = [f"mine-seed-{seed}{of}" for seed in (0, 1) for of in ("", "@2", "@mean")]
    assert folders == ["_hr", "_lr", *both]
    single = [
        run(
            config(world, method=[config(world, samples=2)["method"][0]], metrics=["psnr", "diversity"], seed=seed),
            world / f"{seed}",
        )
        for seed in (0, 1)
    ]
    draws = pd.read_csv(world / "run" / "draw_scores.csv").groupby("seed")
    for seed in (0, 1):
        alone = pd.read_csv(world / f"{seed}" / "draw_scores.csv")
        pd.testing.assert_frame_equal(draws.get_group(seed).reset_index(drop=True), alone)
    first = pd.read_csv(world / "run" / "draw_scores.csv").query("sample == 1 and metric == 'psnr'")
    assert first["value"].mean() == pytest.approx(results.loc[("mine", "psnr"), "value"], rel=1e-9)
    for name, metric in results.index:
        values = [r.set_index(["method", "metric"]).loc[(name, metric), "value"] for r in single]
        assert results.loc[(name, metric), "value"] == pytest.approx(np.mean(values), rel=1e-9)
        assert results.loc[(name, metric), "n_seeds"] == 2


def test_figures_show_samples(finished, tmp_path):
    whole = Window(0, 0, 64, 64)
    figure = pixels(write(finished, "a/0", whole, tmp_path / "figure.png", ["mine"], columns=5, samples=True))
    for place, folder in enumerate(["mine", *MORE, "_hr"], start=1):
        left = 192 + 12 + place * (192 + 12)
        assert (figure[:192:3, left : left + 192 : 3] == pixels(finished / "images" / folder / "a" / "0.png")).all()
    with pytest.raises(UserError, match='unknown method "mine .best of 3."'):
        write(finished, "a/0", whole, tmp_path / "figure.png", ["mine (best of 3)"])


def test_packs_have_pictures_alone(finished, tmp_path):
    command = ["stimuli", str(finished), "--out", str(tmp_path / "pack"), "--test", "1"]
    result = CliRunner().invoke(main, [*command, "--practice", "1", "--catch", "1"])
    assert result.exit_code == 0, result.output
    shown = json.loads((tmp_path / "pack" / "manifest.json").read_text())["methods"]
    assert shown == {"mine": "mine", "mine@mean": "mine (mean of 3)", "bicubic": "bicubic"}


def test_a_run_with_samples_is_read_back(finished, tmp_path):
    result = CliRunner().invoke(main, ["table", str(finished), "--out", str(tmp_path / "table")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "table" / "results.md").read_bytes() == (finished / "results.md").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, 'method "mine": samples = 0; at least 1 is needed'),
        ({"samples": "8"}, '"method "mine".samples" must be a whole number'),
        ({"kind": "bicubic"}, 'method "mine": samples = 3, but it does not say that it draws from its seeds'),
        ({"python": "silent"}, "`stochastic = True` of your own method"),
        ({"kind": "precomputed", "folder": "images"}, 'method "mine": precomputed takes no samples'),
        ({"name": "mine (best of 3)"}, "the table calls the best of a method's samples so; rename it"),
    ],
)
def test_bad_samples_are_one_line_before_work(world, changes, message):
    changes = {key: f"{world / 'mine.py'}:{value}" if key == "python" else value for key, value in changes.items()}
    method = {"name": "mine", "samples": K, **({} if "kind" in changes else {"python": f"{world / 'mine.py'}:build"})}
    toml = world / "run.toml"
    toml.write_text(tomli_w.dumps(config(world, method=[method | changes])))
    result = CliRunner().invoke(main, ["run", str(toml), "--out", str(world / "run")])
    assert result.exit_code == 1 and len(result.output.strip().splitlines()) == 1
    assert message in result.output
    assert not (world / "run").exists()


def test_diversity_without_samples_is_one_line(world):
    with pytest.raises(UserError, match=r"^diversity: compares several samples of an input; add samples = 8 to a \[\["):
        start(world, samples=1, metrics=["diversity"])
    assert not (world / "run").exists()


def test_names_of_rows_are_taken(world):
    method = config(world)["method"][0]
    with pytest.raises(UserError, match=r'method "mine \(mean of 3\)": another one has this name'):
        RunConfig.parse(config(world, method=[method, {"name": "mine (mean of 3)", "kind": "bicubic"}]))
    parsed = RunConfig.parse(config(world))
    assert RunConfig.parse(parsed.plain()) == parsed
