"""Images made from noise: folders without HR and LR, scored against a reference, each method for itself."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch

from sr3eval.benchmark import plan, run
from sr3eval.benchmark.comparison import compare
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.published import with_published
from sr3eval.benchmark.scores import read_runs
from sr3eval.benchmark.statistics import statistics
from sr3eval.benchmark.summary import summarise
from sr3eval.benchmark.table import markdown
from sr3eval.config import read_toml
from sr3eval.data import choose
from sr3eval.errors import UserError
from sr3eval.features import networks
from sr3eval.folders import stable_hash
from sr3eval.images import load, save
from sr3eval.methods.precomputed import Precomputed
from sr3eval.metrics import fid, inception_score

ROOT = Path(__file__).parents[2]
SIDE = 64
COUNTS = {"a": 60, "b": 48}
DIMENSIONS = 32


def pooled(_module, x):
    """Means of 4 x 4 colours, from which 32 features are projected."""
    means = torch.nn.functional.adaptive_avg_pool2d(x, (4, 4)).flatten(1)
    mix = torch.randn(means.shape[1], DIMENSIONS, generator=torch.Generator().manual_seed(0))
    return means @ mix, means @ mix


NETWORK = networks.Network("pooled", DIMENSIONS, torch.nn.Identity(), lambda x: x, pooled)


@pytest.fixture(autouse=True)
def network(monkeypatch, one_thread):
    """Fewer features than images, in place of EfficientNet-Lite0's 1280."""
    monkeypatch.setattr(fid, "efficientnet_lite0", lambda: NETWORK)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Images of two methods, and of a reference, that differ in contrast."""
    folder = tmp_path_factory.mktemp("generated")
    generator = torch.Generator().manual_seed(0)
    for name, count, contrast in (("a", COUNTS["a"], 0.8), ("b", COUNTS["b"], 0.5), ("reference", 90, 1.0)):
        for index in range(count):
            coarse = 0.5 + contrast * (torch.rand(1, 3, 4, 4, generator=generator) - 0.5)
            save(folder / name / f"{index:06d}.png", torch.nn.functional.interpolate(coarse, (SIDE, SIDE))[0])
    statistics(folder / "reference", "photos_16_64", NETWORK, folder / "real.npz", 16)
    return folder


@pytest.fixture
def settings(folders):
    """A run of both methods against statistics of the reference, and a metric of single images."""
    (folders / "brightness.py").write_text("def build():\n    return lambda batch: batch.sr.mean(dim=(1, 2, 3))\n")
    own = {"python": f"{folders / 'brightness.py'}:build", "higher_is_better": True, "needs_hr": False}
    return {
        "task": "photos_16_64",
        "metrics": [{"name": "fd_efficientnet_lite0", "reference": str(folders / "real.npz")}, own],
        "generated": {},
        "method": [{"name": name, "kind": "precomputed", "folder": str(folders / name)} for name in COUNTS],
    }


def stacked(folder):
    return torch.stack([load(path) for path in sorted(folder.glob("*.png"))])


def features(folder):
    """[N, d] of all pictures of a folder, in float64."""
    return pooled(None, stacked(folder))[0].double().numpy()


def frechet_distance(x, y):
    """As pytorch-fid's calculate_frechet_distance: by the matrix square root of the product."""
    sigmas = [np.cov(rows, rowvar=False) for rows in (x, y)]
    root = scipy.linalg.sqrtm(sigmas[0] @ sigmas[1]).real
    difference = x.mean(axis=0) - y.mean(axis=0)
    return difference @ difference + np.trace(sigmas[0]) + np.trace(sigmas[1]) - 2 * np.trace(root)


def test_scores_are_those_of_independent_formulas(settings, folders, tmp_path):
    results = run(settings, tmp_path / "run").set_index(["metric", "method"])
    for name, count in COUNTS.items():
        distance, brightness = (results.loc[metric, name] for metric in ("fd_efficientnet_lite0_real", "brightness"))
        assert distance["value"] == pytest.approx(
            frechet_distance(features(folders / name), features(folders / "reference")), rel=1e-6
        )
        assert brightness["value"] == pytest.approx(stacked(folders / name).double().mean().item())
        for row in (distance, brightness):
            assert row["n"] == count
            assert row["ci_low"] < row["value"] < row["ci_high"]


def test_the_interval_is_the_jackknife_over_the_methods_own_blocks(settings, folders, tmp_path):
    """By its definition for groups of unequal size (Busing et al. 1999), from features of this test's own."""
    row = run(settings, tmp_path / "run").set_index(["metric", "method"]).loc["fd_efficientnet_lite0_real", "a"]
    x, y = features(folders / "a"), features(folders / "reference")
    blocks = np.array([stable_hash("block", f"{index:06d}") % 20 for index in range(len(x))])
    value, names = frechet_distance(x, y), np.unique(blocks)
    without = np.array([frechet_distance(x[blocks != name], y) for name in names])
    h = np.array([len(x) / (blocks == name).sum() for name in names])
    pseudo = h * value - (h - 1) * without
    mean = len(names) * value - ((1 - 1 / h) * without).sum()
    error = np.sqrt(((pseudo - mean) ** 2 / (h - 1)).mean())
    half = scipy.stats.t.ppf(0.975, len(names) - 1) * error
    assert [row["ci_low"], row["ci_high"]] == pytest.approx([value - half, value + half], rel=1e-5)


def test_nothing_is_paired_and_n_is_shown(settings, tmp_path):
    """Image 000000 of one method has nothing to do with that of another, nor has a block."""
    results = run(settings, tmp_path / "run")
    assert results[["delta_to_best", "p_value"]].isna().all(axis=None)
    per_image = pd.read_csv(tmp_path / "run" / "per_image.csv")
    assert per_image["image_id"].is_unique
    text = markdown(results)
    assert "| a (N = 60) |" in text
    assert "| b (N = 48) |" in text
    assert "a: 60 images, b: 48 images as a set; brackets: 95 % jackknife" in text
    assert "none is tested against another" in text
    assert "compare them at equal N only; here N differs" in text
    assert "†" not in text
    assert "Too few groups" not in text
    assert "same images" not in text


def test_limit_takes_as_many_of_every_method(settings, folders, tmp_path):
    settings["generated"] = {"limit": 40}
    results = run(settings, tmp_path / "run").set_index(["metric", "method"])
    chosen = [int(image_id) for image_id in choose([f"{k:06d}" for k in range(COUNTS["b"])], 40)]
    x, y = features(folders / "b")[chosen], features(folders / "reference")
    assert results.loc["fd_efficientnet_lite0_real", "b"]["value"] == pytest.approx(frechet_distance(x, y), rel=1e-6)
    assert set(results["n"]) == {40}
    assert "(N =" not in (tmp_path / "run" / "results.md").read_text()


def test_limit_takes_images_of_all_class_folders(settings, folders, tmp_path):
    """Not the first by their names, which would be of a few classes."""
    for name in ("n01", "n02"):
        shutil.copytree(folders / "b", tmp_path / "classes" / name)
    settings |= {"generated": {"limit": 40}, "method": [{"kind": "precomputed", "folder": str(tmp_path / "classes")}]}
    run(settings, tmp_path / "run")
    ids = pd.read_csv(tmp_path / "run" / "per_image.csv")["image_id"]
    assert ids.str.contains("n01/").sum() == ids.str.contains("n02/").sum() == 20


def test_fewer_images_than_the_limit_are_refused(settings, tmp_path):
    settings["generated"] = {"limit": COUNTS["b"] + 1}
    with pytest.raises(UserError, match=f"{COUNTS['b']} images, fewer than generated.limit = {COUNTS['b'] + 1}"):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_decodes_what_is_new_alone(settings, folders, tmp_path, monkeypatch):
    for name in COUNTS:
        shutil.copytree(folders / name, tmp_path / name)
    settings["method"] = [{"name": n, "kind": "precomputed", "folder": str(tmp_path / n)} for n in COUNTS]
    run(settings, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    looked = []
    decode = Precomputed.lookup
    monkeypatch.setattr(
        Precomputed, "lookup", lambda m, i, hr: looked.append(f"{m.folder.name}/{i}") or decode(m, i, hr)
    )
    run(settings, tmp_path / "run")
    on_sheets = {
        f"{name}/{i}" for name, count in COUNTS.items() for i in choose([f"{k:06d}" for k in range(count)], 64)
    }
    assert sorted(looked) == sorted(on_sheets)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")} == before

    looked.clear()
    shutil.copy(folders / "reference" / "000000.png", tmp_path / "b" / "000048.png")
    planned = plan(RunConfig.parse(settings), tmp_path / "run", tmp_path / "cache")
    assert planned.remarks == ('method "b": its outputs have changed; it is scored anew',)
    results = run(settings, tmp_path / "run").set_index(["metric", "method"])
    assert len(looked) == 60 + 49 + 49  # sheets of both, and the scores of b
    assert results.loc["brightness", "b"]["n"] == 49


def test_report_shows_a_sheet_of_each_method(settings, folders, tmp_path):
    run(settings, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == 2
    assert "const RUN" not in page
    sheet = load(tmp_path / "run" / "sheets" / "b.png")
    assert sheet.shape == (3, 6 * 128, 8 * 128)  # 48 pictures of 64 pixels, enlarged twice
    assert torch.equal(sheet[:, 128:256:2, 1:256:2][..., 64:], load(folders / "b" / "000009.png"))


def test_runs_of_other_methods_are_rows_of_one_table(settings, tmp_path):
    first, second = (settings | {"method": [method]} for method in settings["method"])
    run(first, tmp_path / "first")
    run(second, tmp_path / "second")
    table = summarise(*read_runs([tmp_path / "first", tmp_path / "second"]))
    alone = run(settings, tmp_path / "both")
    columns = ["method", "metric", "value", "ci_low", "ci_high", "n", "best"]
    pd.testing.assert_frame_equal(table[columns], alone[columns])
    with pytest.raises(UserError, match="no image in common"):
        compare(tmp_path / "first", tmp_path / "second")


def test_errors_are_counted_against_the_folders_labels(settings, folders, tmp_path, random_weights, monkeypatch):
    """Classes of generated images, and ResNet-50's on outputs that are enlarged to its size."""
    monkeypatch.setenv("SR3EVAL_WEIGHTS", str(random_weights))
    monkeypatch.setattr(networks.Network, "look", lambda _network, x: networks.Features(x, classes(x)))
    labels = torch.arange(COUNTS["b"]) % 3
    rows = [f"{index:06d},{label}" for index, label in enumerate(labels.tolist())]
    (tmp_path / "labels.csv").write_text("\n".join(["image_id,label", *rows]))
    settings["metrics"] = [{"name": "top1_error", "resize": "bicubic"}]
    settings["method"] = settings["method"][1:]
    with pytest.raises(UserError, match='top1_error_bicubic: method "b" needs labels = "FILE.csv"'):
        run(settings, tmp_path / "run")
    settings["method"][0]["labels"] = str(tmp_path / "labels.csv")
    results = run(settings, tmp_path / "run")
    enlarged = torch.nn.functional.interpolate(stacked(folders / "b"), (224, 224), mode="bicubic", antialias=True)
    wrong = classes(enlarged.clamp(0, 1)).argmax(dim=1) != labels
    assert 0 < results["value"].item() == wrong.double().mean().item() < 1


def classes(images):
    """The colour of which there is most, as the score of three classes."""
    return images.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metrics": ["psnr"]}, "psnr: needs HR images; this run has none.* fid with reference"),
        ({"metrics": ["fd_efficientnet_lite0"]}, "fd_efficientnet_lite0: needs HR images"),
        ({"metrics": ["consistency"]}, "consistency: needs LR images; this run has none"),
        ({"data": {"images": "x"}}, r"data: does not go with \[generated\]"),
        ({"on_error": "skip"}, "on_error: does not go with"),
        ({"method": [{"kind": "bicubic"}]}, r'method "bicubic": \[generated\] takes images that exist already'),
        ({"method": [{"kind": "precomputed", "folder": "absent"}]}, "absent: no such folder"),
        ({"generated": {"limit": 0}}, "generated.limit: 0 leaves no image"),
        ({"generated": {"limt": 5}}, 'unknown key "generated.limt": did you mean "limit"'),
        ({"task": "imagenet_64_256"}, "000000 is 64x64; imagenet_64_256 has 256x256"),
    ],
)
def test_what_does_not_fit_is_refused_before_work(settings, tmp_path, changed, message):
    with pytest.raises(UserError, match=message):
        run(settings | changed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_of_ordinary_runs_stand_elsewhere(settings, folders, tmp_path):
    settings["method"] = [settings["method"][0] | {"labels": "folders"}]
    del settings["generated"]
    with pytest.raises(UserError, match='missing key "data"'):
        run(settings, tmp_path / "run")
    with pytest.raises(UserError, match=r"labels are of \[generated\] images"):
        run(settings | {"data": {"images": str(folders / "a")}, "metrics": ["psnr"]}, tmp_path / "run")


def test_images_of_no_task_may_have_any_size(settings, folders, tmp_path):
    del settings["task"]
    results = run(settings, tmp_path / "run")
    assert set(results["task"]) == {"generated"}
    assert RunConfig.parse(read_toml(tmp_path / "run" / "config.toml")).task.scale == 1


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        (
            "table_5",
            {
                "VQ-VAE-2": 38.1,
                "BigGAN (truncation 1.0)": 7.4,
                "BigGAN (truncation 1.5)": 11.8,
                "SR3 (two stages)": 11.3,
            },
        ),
        ("table_6", {"SR3 (no blur)": 13.1, "SR3 (w/ Gaussian blur)": 11.3, "SR3 (L2)": 11.8, "SR3 (L1)": 11.3}),
    ],
)
def test_the_papers_tables_of_generated_images(name, printed, tmp_path, monkeypatch):
    """The configs, whole, on stand-ins for their files; and the paper's rows in italics beside ours."""
    monkeypatch.chdir(tmp_path)
    for module in (fid, inception_score):
        monkeypatch.setattr(module, "inception", lambda _weights, _resize: NETWORK)
    config = RunConfig.parse(read_toml(ROOT / "configs" / "paper" / f"{name}.toml"))
    generator = torch.Generator().manual_seed(0)
    for folder in ("data/imagenet", *dict.fromkeys(method.options["folder"] for method in config.method)):
        for index in range(12):
            save(Path(folder) / f"{index:06d}.png", torch.rand(3, 256, 256, generator=generator))
    statistics(Path("data/imagenet"), config.task.name, NETWORK, Path("data/imagenet_train.npz"), 12)
    results = run(config, "run")
    table = with_published(results, f"paper:{name}")
    theirs = table[table["source"] != ""]
    assert dict(zip(theirs["method"], theirs["value"], strict=True)) == printed
    ours = results[results["metric"] == "fid_imagenet_train"].set_index("method")["value"]
    both = theirs[theirs["method"].isin(ours.index)]
    assert list(both["difference"]) == [ours[m] - printed[m] for m in both["method"]]
    assert set(both["method"]) == {method.name for method in config.method}
    text = markdown(table)
    assert all(f"*{method}* (SR3, Table {name[6]}" in text for method in printed)
    assert "values as published, which took no part in comparisons" in text
    assert text.count("quoted there") == (3 + 1 if name == "table_5" else 0)  # rows, and the legend
    assert set(with_published(results, "paper")["source"]) > {"SR3, Table 5", "SR3, Table 6"}
