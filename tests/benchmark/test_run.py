"""benchmark.py from the outside: a run, its files, its resumption, and everything that can be wrong with its input."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tomli_w
import torch
from click.testing import CliRunner
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from benchmark import main
from sr3eval import methods, metrics
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.make import make
from sr3eval.benchmark.plan import plan
from sr3eval.benchmark.progress import silent
from sr3eval.benchmark.score import score
from sr3eval.benchmark.scores import notes_text, read_run
from sr3eval.config import check_call, from_dict, read_toml
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.folders import stable_hash
from sr3eval.images import bicubic_down, bicubic_up, load, save, to_uint8

ROOT = Path(__file__).parents[2]
RESULTS = ("per_image.csv", "results.csv", "results.md", "results.tex", "report.html", "environment.json")

# A method of somebody's own that is slow, draws from its seeds, and can be told to fail.
OWN_METHOD = """
import os, signal, time
import torch
from sr3eval.method import Upscaled
class Noisy:
    name, scale, fingerprint = "noisy", 4, "noisy"
    calls = 0
    def upscale(self, lr, seeds):
        Noisy.calls += 1
        if os.environ.get("KILL_AT") == str(Noisy.calls):
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("SLOW"):
            print("working", flush=True)
            time.sleep(0.3)
        sr = torch.nn.functional.interpolate(lr, scale_factor=4)
        noise = torch.stack([torch.randn(sr.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds])
        return (sr + 0.05 * noise).clamp(0, 1)
def build(): return Noisy()
class Bad(Noisy):
    def __init__(self, fault): self.fault, self.fingerprint = fault, fault
    def upscale(self, lr, seeds):
        sr = super().upscale(lr, seeds)
        return {"nan": sr * float("nan"), "range": sr * 255, "size": sr[..., 1:], "double": sr.double()}[self.fault]
def bad(*, fault: str): return Bad(fault)
def other_scale():
    noisy = Noisy(); noisy.scale = 8
    return noisy
class Noting(Noisy):
    fingerprint = "noting"
    def upscale(self, lr, seeds, progress=None):
        for step in (1, 2):
            progress and progress(step / 2)
        notes = [{"converged": seed % 2 == 0, "steps": 10} for seed in seeds]
        said = [note if seed % 3 else {} for note, seed in zip(notes, seeds)]
        return Upscaled(super().upscale(lr, seeds), said)
def noting(): return Noting()
class Alone(Noisy):
    fingerprint, one_by_one = "alone", True
    def upscale(self, lr, seeds):
        return Upscaled(super().upscale(lr, seeds), [{"beside": len(seeds) - 1}] * len(seeds))
def alone(): return Alone()
def other_size():
    noisy = Noisy(); noisy.lr_size = 32
    return noisy
def nothing(): return 3
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with images/ (ten of them in three groups, one too small) and mine.py."""
    folder = tmp_path_factory.mktemp("world")
    generator = torch.Generator().manual_seed(0)
    for index in range(10):
        coarse = torch.rand(1, 3, 9, 9, generator=generator)
        image = torch.nn.functional.interpolate(coarse, (80, 90), mode="bicubic")[0].clamp(0, 1)
        save(folder / "images" / "abc"[index % 3] / f"{index}.png", image)
    save(folder / "images" / "small.png", torch.rand(3, 63, 200, generator=generator))
    (folder / "mine.py").write_text(OWN_METHOD)
    return folder


def config(world, **changes):
    return {
        "task": "photos_16_64",
        "batch_size": 3,
        "metrics": ["psnr", "ssim", "consistency", {"name": "psnr", "channel": "y", "border": 4}],
        "data": {"images": str(world / "images"), "group": "parent"},
        "method": [{"kind": "bicubic"}, {"name": "My method", "python": f"{world / 'mine.py'}:build"}],
    } | changes


def benchmark(tmp_path, settings, out="run", **environment):
    """Run `benchmark.py run`; returns what `command` does."""
    path = tmp_path / "config.toml"
    path.write_text(settings if isinstance(settings, str) else tomli_w.dumps(settings))
    return command("run", path, "--out", tmp_path / out, **environment)


def command(*arguments, **environment):
    """Run `benchmark.py`, in a process of its own if that is to have an `environment` (a kill ends it)."""
    words = list(map(str, arguments))
    if environment:
        line = [sys.executable, str(ROOT / "benchmark.py"), *words]
        return subprocess.run(line, capture_output=True, text=True, env=os.environ | environment)
    result = CliRunner().invoke(main, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception  # a traceback, which no user shall see
    return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    result = benchmark(folder, config(world))
    assert result.returncode == 0, result.stderr
    return folder / "run", result.stdout


def files(run):
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


def test_writes_the_files_of_the_contract(finished):
    run, printed = finished
    assert {"config.toml", *RESULTS} <= set(files(run))
    scores = pd.read_csv(run / "per_image.csv")
    assert list(scores.columns[:6]) == ["task", "method", "image_id", "metric", "value", "group"]
    assert len(scores) == 2 * 10 * 4
    assert set(scores["group"]) == {"a", "b", "c"}
    results = pd.read_csv(run / "results.csv")
    contract = ["task", "method", "metric", "value", "ci_low", "ci_high", "n", "higher_is_better", "settings"]
    assert list(results.columns[:9]) == contract
    assert set(results["metric"]) == {"psnr", "ssim", "consistency", "psnr_y_b4"}
    assert (results["n"] == 10).all()
    assert '"left_out_too_small": 1' in (run / "environment.json").read_text()
    assert "| My method" in printed
    assert (run / "results.md").read_text() in printed


def test_scores_are_those_of_the_written_pictures(finished):
    run, _ = finished
    scores = pd.read_csv(run / "per_image.csv").set_index(["method", "image_id", "metric"])["value"]
    for method, slug in (("bicubic", "bicubic"), ("My method", "my-method")):
        sr = np.asarray(Image.open(run / "images" / slug / "b" / "4.png"))
        hr = np.asarray(Image.open(run / "images" / "_hr" / "b" / "4.png"))
        assert scores[method, "b/4", "psnr"] == pytest.approx(peak_signal_noise_ratio(hr, sr), abs=1e-5)
    results = pd.read_csv(run / "results.csv").set_index(["method", "metric"])["value"]
    mean = scores.groupby(["method", "metric"]).mean()
    assert results["bicubic", "psnr"] == pytest.approx(mean["bicubic", "psnr"], rel=1e-12)
    lr = load(run / "images" / "_lr" / "b" / "4.png")
    assert lr.shape == (3, 16, 16)


def test_best_values_are_bold_everywhere(finished):
    run, _ = finished
    results = pd.read_csv(run / "results.csv")
    best = results[(results["metric"] == "psnr") & results["best"]]
    assert len(best) == 1
    value = f"{best['value'].item():.2f}"
    assert f"**{value}**" in (run / "results.md").read_text()
    assert f"\\textbf{{{value}}}" in (run / "results.tex").read_text()
    assert f"<strong>{value}</strong>" in (run / "report.html").read_text()
    other = results[(results["metric"] == "psnr") & ~results["best"]]
    assert other["delta_to_best"].item() == pytest.approx(other["value"].item() - best["value"].item())


def test_latex_escapes_names_and_balances(world, tmp_path):
    names = [{"kind": "bicubic", "name": r"100% of {A_B} & \C$ #1 ^~"}]
    assert benchmark(tmp_path, config(world, method=names)).returncode == 0
    text = (tmp_path / "run" / "results.tex").read_text()
    row = text.split("\\midrule")[1].split("\\bottomrule")[0]
    unescaped = re.sub(r"\\text\w+\{\}|\\.", "", row).replace(" & ", " ", 4)  # four metrics: four separators
    assert not set("&%#_^~$") & set(unescaped)
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_report_needs_nothing_from_elsewhere(finished):
    html = (finished[0] / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)|https?://|@import|url\(', html)
    assert html.count("data:image/png;base64,") == 4 * 10  # ten images: LR, two methods, HR


def test_table_is_remade_from_the_files_alone(finished, tmp_path):
    run, _ = finished
    result = command("table", run, "--out", tmp_path / "again")
    assert result.returncode == 0, result.stderr
    for name in ("results.csv", "results.md", "results.tex"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()


def test_runs_are_combined(finished, tmp_path):
    run, _ = finished
    shutil.copytree(run, tmp_path / "second")
    result = command("table", run, tmp_path / "second", "--out", tmp_path / "both")
    assert result.returncode == 0, result.stderr
    methods = set(pd.read_csv(tmp_path / "both" / "results.csv")["method"])
    assert methods == {"bicubic", "My method"}  # equal scores are one row
    scores = tmp_path / "second" / "per_image.csv"
    table = pd.read_csv(scores)
    table.loc[table["method"] == "bicubic", "value"] += 1
    table.to_csv(scores, index=False)
    result = command("table", run, tmp_path / "second", "--out", tmp_path / "both")
    methods = set(pd.read_csv(tmp_path / "both" / "results.csv")["method"])
    assert methods == {"run/bicubic", "second/bicubic", "My method"}


def test_killed_run_goes_on_to_the_same_bytes(world, finished, tmp_path):
    killed = benchmark(tmp_path, config(world), KILL_AT="3")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "results.csv").exists()
    assert benchmark(tmp_path, config(world)).returncode == 0
    assert files(tmp_path / "run") == files(finished[0])


def test_interrupted_run_says_one_line_and_goes_on(world, finished, tmp_path):
    (tmp_path / "config.toml").write_text(tomli_w.dumps(config(world)))
    line = [
        sys.executable,
        str(ROOT / "benchmark.py"),
        "run",
        str(tmp_path / "config.toml"),
        "--out",
        str(tmp_path / "run"),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": os.environ | {"SLOW": "1"}}
    process = subprocess.Popen(line, **pipes)
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines() == ["Stopped. The same command resumes from here."]
    assert benchmark(tmp_path, config(world)).returncode == 0
    assert files(tmp_path / "run") == files(finished[0])


def test_bytes_do_not_depend_on_which_images_are_left_to_make(world, finished, tmp_path):
    """Cache entries that vanish or are damaged are made again, in other batches, with the same result."""
    assert benchmark(tmp_path, config(world)).returncode == 0
    entries = sorted((tmp_path / ".cache").rglob("*.png"))
    entries[0].unlink()
    entries[7].write_bytes(entries[7].read_bytes()[:-20])
    shutil.rmtree(tmp_path / "run" / "images" / "my-method")
    assert benchmark(tmp_path, config(world)).returncode == 0
    assert files(tmp_path / "run") == files(finished[0])


def test_cache_is_shared_between_runs(world, tmp_path):
    assert benchmark(tmp_path, config(world)).returncode == 0
    again = benchmark(tmp_path, config(world, metrics=["psnr"]), out="other", KILL_AT="1")
    assert again.returncode == 0  # every output was found: the method was never called


def told(planned, stage):
    """Make the images; what was told of a stage."""
    events = []
    make(planned, lambda name, done, total: events.append((name, done)))
    return [done for name, done in events if name == stage]


def test_what_a_method_says_of_its_images_is_kept_and_counted(world, tmp_path):
    settings = config(world, metrics=["psnr"], method=[{"name": "mine", "python": f"{world / 'mine.py'}:noting"}])
    planned = plan(RunConfig.parse(settings), tmp_path / "first", tmp_path / "cache")
    assert told(planned, "mine") == ([0, 1.5, 3, 3, 4.5, 6, 6, 7.5, 9, 9, 9.5, 10, 10])
    notes = {}
    for image_id in [image.image_id for image in planned.images]:
        seed, path = stable_hash(0, image_id), tmp_path / "first" / "images" / "mine" / f"{image_id}.json"
        assert path.exists() == bool(seed % 3)
        if path.exists():
            notes[image_id] = json.loads(path.read_text())
            assert notes[image_id] == {"converged": seed % 2 == 0, "steps": 10}
    for out, environment in {"first": {}, "second": {"KILL_AT": "1"}}.items():  # the second from the cache
        assert benchmark(tmp_path, settings, out, **environment).returncode == 0
        results = pd.read_csv(tmp_path / out / "results.csv")
        converged = sum(note["converged"] for note in notes.values())
        expected = f"converged {converged} of {len(notes)}, steps 10 (mean of {len(notes)})"
        assert set(results["method_notes"]) == {expected}
        assert expected in (tmp_path / out / "report.html").read_text()
    assert files(tmp_path / "first") == files(tmp_path / "second")


@pytest.mark.parametrize("path", [{}, {"path": ["method"]}], ids=["", "path"])
def test_a_method_may_ask_for_one_image_at_a_time(world, tmp_path, path):
    settings = config(world, metrics=["psnr"], method=[{"name": "mine", "python": f"{world / 'mine.py'}:alone"} | path])
    planned = plan(RunConfig.parse(settings), tmp_path / "run", tmp_path / "cache")
    assert told(planned, "mine") == list(range(11))
    score(planned, silent)
    assert set(read_run(tmp_path / "run").methods["method_notes"]) == {"beside 0 (mean of 10)"}


def test_notes_in_short():
    notes = [{"good": True, "heat": 0.5}, {}, {"good": False, "by": "bicubic"}, {"heat": 1, "by": "bicubic"}]
    assert notes_text(notes) == "good 1 of 2, heat 0.75 (mean of 2), by bicubic (2)"


def test_other_seed_gives_other_noise(world, finished, tmp_path):
    assert benchmark(tmp_path, config(world, seed=1)).returncode == 0
    ours, theirs = files(tmp_path / "run"), files(finished[0])
    assert ours["images/bicubic/b/4.png"] == theirs["images/bicubic/b/4.png"]
    assert ours["images/my-method/b/4.png"] != theirs["images/my-method/b/4.png"]


def test_limit_is_spread_over_the_groups(world, tmp_path):
    settings = config(world, metrics=["psnr"])
    settings["data"]["limit"] = 3
    assert benchmark(tmp_path, settings).returncode == 0
    chosen = pd.read_csv(tmp_path / "run" / "per_image.csv")["group"]
    assert sorted(set(chosen)) == ["a", "b", "c"]


def test_precomputed_outputs_are_scored_as_they_are(world, finished, tmp_path):
    run, _ = finished
    outputs = tmp_path / "outputs"
    shutil.copytree(run / "images" / "my-method", outputs)
    method = [{"kind": "precomputed", "folder": str(outputs)}]
    assert benchmark(tmp_path, config(world, method=method)).returncode == 0
    ours = pd.read_csv(tmp_path / "run" / "results.csv").set_index("metric")["value"]
    theirs = pd.read_csv(run / "results.csv").query("method == 'My method'").set_index("metric")["value"]
    pd.testing.assert_series_equal(ours, theirs)


def test_changed_images_are_noticed(world, tmp_path):
    """Pictures of a run and its scores are of the same images, or the run stops."""
    images = tmp_path / "images"
    shutil.copytree(world / "images", images)
    settings = config(world, data={"images": str(images)}, metrics=["psnr"])
    assert benchmark(tmp_path, settings).returncode == 0
    before = files(tmp_path / "run")
    save(images / "a" / "3.png", torch.rand(3, 64, 64))
    result = benchmark(tmp_path, settings)
    assert result.returncode == 1
    assert "the images have changed since this run began" in result.stderr
    assert files(tmp_path / "run") == before
    assert benchmark(tmp_path, settings, out="new").returncode == 0
    result = command("table", tmp_path / "run", tmp_path / "new")
    assert "| Method    | run PSNR ↑" in result.stdout and "| new PSNR ↑" in result.stdout  # two sets of images
    assert "named twice" in command("table", tmp_path / "run", tmp_path / "run").stderr


def test_an_edited_method_is_not_found_in_the_cache(world, tmp_path):
    (tmp_path / "helper.py").write_text("GAIN = 1.0")
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\nimport helper\n"
    text += "@dataclass\nclass Mine:\n    name: str = 'mine'\n    scale: int = 4\n    fingerprint: str = 'mine'\n"
    text += "    def upscale(self, lr, seeds):\n"
    text += "        return (GAIN * lr).repeat_interleave(4, -1).repeat_interleave(4, -2)\n"
    text += "def build(): return Mine()\n"
    values = []
    for gain in ("helper.GAIN", "0.5"):
        (tmp_path / "edited.py").write_text(text.replace("GAIN *", f"{gain} *"))
        settings = config(world, metrics=["psnr"], method=[{"python": f"{tmp_path / 'edited.py'}:build"}])
        assert benchmark(tmp_path, settings, out=gain).returncode == 0
        values.append(pd.read_csv(tmp_path / gain / "results.csv")["value"].item())
    assert values[0] > values[1] + 3


def test_no_mark_where_no_test_is_possible(world, tmp_path):
    """Three groups: the smallest p of a sign-flip test is 1/4, so "not significantly different" would say nothing."""
    result = benchmark(tmp_path, config(world, metrics=["psnr"]))
    assert result.returncode == 0
    assert "†" not in (tmp_path / "run" / "results.md").read_text().replace("no †", "")
    assert "Too few groups for a test" in result.stdout
    data = {"images": str(world / "images"), "group": "image"}
    assert benchmark(tmp_path, config(world, metrics=["psnr"], data=data), out="ungrouped").returncode == 0
    results = pd.read_csv(tmp_path / "ungrouped" / "results.csv")
    assert results["testable"].dropna().all()
    assert "Too few groups" not in (tmp_path / "ungrouped" / "results.md").read_text()


def test_a_kill_while_a_folder_is_claimed_leaves_it_usable(world, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".tmp-abc").write_text("task")
    assert benchmark(tmp_path, config(world, metrics=["psnr"])).returncode == 0


def test_identical_images_are_counted_and_have_the_ceiling_in_the_mean(world, finished, tmp_path):
    run, _ = finished
    outputs = tmp_path / "outputs"
    shutil.copytree(run / "images" / "my-method", outputs)
    shutil.copy(run / "images" / "_hr" / "a" / "0.png", outputs / "a" / "0.png")
    method = [{"kind": "precomputed", "folder": str(outputs)}]
    assert benchmark(tmp_path, config(world, method=method)).returncode == 0
    scores = (tmp_path / "run" / "per_image.csv").read_text()
    assert "a/0,psnr,inf,a" in scores
    row = pd.read_csv(tmp_path / "run" / "results.csv").set_index("metric").loc["psnr"]
    assert (row["n"], row["n_infinite"]) == (10, 1)
    finite = pd.read_csv(tmp_path / "run" / "per_image.csv").query("metric == 'psnr' and value < inf")["value"]
    assert row["value"] == pytest.approx((finite.sum() + 20 * math.log10(510)) / 10, rel=1e-12)
    said = (tmp_path / "run" / "results.md").read_text()
    assert "images equal to HR count as 54.15 dB, an error of half a grey level, in PSNR: 1 of precomputed." in said
    assert re.search(r"\*\*[0-9.]+\*\*‡ ", said)


def test_the_reference_is_a_row_that_nothing_is_compared_with(world, tmp_path):
    settings = config(world, method=[{"kind": "reference"}, {"kind": "bicubic"}, method(world)[0]])
    result = benchmark(tmp_path, settings)
    assert result.returncode == 0, result.stderr
    results = pd.read_csv(tmp_path / "run" / "results.csv").set_index(["method", "metric"])
    assert results.loc[("reference", "ssim"), "value"] == 1
    assert not results.loc["reference", "best"].any()
    assert results.loc["reference", "p_value"].isna().all()
    assert results.groupby("metric")["best"].sum().eq(1).all()
    assert re.search(r"\| reference +\| inf +\| 1\.000", result.stdout)
    assert "equal their reference" not in result.stdout
    assert "reference – " not in (tmp_path / "run" / "report.html").read_text()


def test_a_path_takes_a_method_of_another_scale_through_the_task(world, tmp_path):
    """56 -> 64 -> 256 -> 224 as in the paper's classification; the steps are computed here once more by hand."""
    images = tmp_path / "images"
    for index in range(3):
        save(images / f"{index}.png", torch.rand(3, 257, 260, generator=torch.Generator().manual_seed(index)))
    path = ["bicubic 64", "method", "bicubic 224"]
    settings = {
        "task": "imagenet_56_224",
        "metrics": ["psnr"],
        "data": {"images": str(images), "limit": 2, "select": "first"},
        "method": [method(world)[0] | {"name": "through", "path": path}, {"kind": "bicubic"}],
    }
    result = benchmark(tmp_path, settings)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "run"
    assert sorted(p.name for p in (run / "images" / "through").iterdir()) == ["0.png", "1.png"]
    enlarged = bicubic_up(load(run / "images" / "_lr" / "1.png")[None], (64, 64)).clamp(0, 1)
    noise = torch.randn((3, 256, 256), generator=torch.Generator().manual_seed(stable_hash(0, "1")))
    sr = (torch.nn.functional.interpolate(enlarged, scale_factor=4) + 0.05 * noise).clamp(0, 1)
    expected = to_uint8(bicubic_down(sr, (224, 224))[0])
    made = to_uint8(load(run / "images" / "through" / "1.png"))
    assert (made.int() - expected.int()).abs().max() <= 1
    assert "bicubic 64 > method > bicubic 224" in result.stdout


def method(world, function="build", **options):
    return [{"name": "x", "python": f"{world / 'mine.py'}:{function}", **options}]


BAD = {
    "unknown key": (lambda w: config(w, metric=["psnr"]), 'unknown key "metric": did you mean "metrics"'),
    "unknown data key": (lambda w: config(w, data={"images": "x", "limt": 3}), 'unknown key "data.limt": did you mean'),
    "wrong type": (lambda w: config(w, seed="one"), '"seed" must be a whole number'),
    "unknown task": (lambda w: config(w, task="photos"), 'unknown task "photos": did you mean "photos_16_64"'),
    "unknown metric": (lambda w: config(w, metrics=["pnsr"]), 'unknown metric "pnsr": did you mean "psnr"'),
    "border too wide": (
        lambda w: config(w, metrics=[{"name": "psnr", "border": 32}]),
        "border 32 leaves nothing of 64x64 images",
    ),
    "metric twice": (lambda w: config(w, metrics=["psnr", "psnr"]), '"psnr" is listed twice'),
    "unknown kind": (
        lambda w: config(w, method=[{"kind": "bicubik"}]),
        'unknown kind "bicubik": did you mean "bicubic"',
    ),
    "unknown option": (
        lambda w: config(w, method=[{"kind": "sr3", "checkpoint": "x", "step": 3}]),
        'unknown key "method "sr3".step": did you mean "steps"',
    ),
    "same name": (lambda w: config(w, method=[{"kind": "bicubic"}] * 2), 'method "bicubic": another one has this name'),
    "no method": (lambda w: config(w, method=[]), "at least one [[method]]"),
    "no folder": (lambda w: config(w, data={"images": "/nowhere"}), "/nowhere: no such folder"),
    "no checkpoint": (
        lambda w: config(w, method=[{"kind": "sr3", "checkpoint": "/no.safetensors"}]),
        "/no.safetensors: cannot be read",
    ),
    "foreign checkpoint": (
        lambda w: config(w, method=[{"kind": "regression", "checkpoint": str(w / "mine.py")}]),
        "mine.py: not a safetensors file, or truncated",
    ),
    "no outputs": (lambda w: config(w, method=[{"kind": "precomputed", "folder": "/none"}]), "/none: no such folder"),
    "no python file": (lambda w: config(w, method=[{"python": "no.py:build"}]), 'python = "no.py:build"'),
    "no such function": (lambda w: config(w, method=method(w, "biuld")), "has no function biuld"),
    "not a method": (lambda w: config(w, method=method(w, "nothing")), "needs name, scale and upscale"),
    "other scale": (lambda w: config(w, method=method(w, "other_scale")), "enlarges 8 times, but photos_16_64 needs 4"),
    "other size": (
        lambda w: config(w, method=method(w, "other_size")),
        "takes 32x32 images, but photos_16_64 has 16",
    ),
    "path of another size": (
        lambda w: config(w, method=method(w, "other_size", path=["method"])),
        "gives 16 pixels to a method that takes 32",
    ),
    "no path": (
        lambda w: config(w, method=method(w, "other_scale", path=["method", "bicubic 65"])),
        "makes 65 pixels of 16; it must",
    ),
    "bad path": (
        lambda w: config(w, method=method(w, "other_scale", path=["method", "linear 64"])),
        'path: "linear 64" is neither "method" nor "bicubic SIDE"',
    ),
    "path of a folder": (
        lambda w: config(w, method=[{"kind": "reference", "path": ["method"]}]),
        "reference takes no path",
    ),
    "reserved name": (
        lambda w: config(w, method=[{"kind": "bicubic", "name": "reference"}]),
        'kind and name "reference" go together',
    ),
    "broken toml": (lambda w: "task = ", "not a readable TOML file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_anything_is_written(world, tmp_path, case):
    settings, message = BAD[case]
    result = benchmark(tmp_path, settings(world))
    lines = result.stderr.strip().splitlines()
    assert (result.returncode, len(lines)) == (1, 1), result.stderr
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", "gave NaN"),
        ("range", "they must be in [0, 1]"),
        ("size", "not float32 (3, 3, 64, 64)"),
        ("double", "float64"),
    ],
)
def test_bad_outputs_are_refused_by_name(world, tmp_path, fault, message):
    result = benchmark(tmp_path, config(world, method=method(world, "bad", fault=fault)))
    lines = result.stderr.strip().splitlines()
    assert (result.returncode, len(lines)) == (1, 1), result.stderr
    assert 'method "x"' in lines[0]
    assert message in lines[0]
    assert not (tmp_path / "run" / "results.csv").exists()


def test_bad_images_are_named(world, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(world / "images", images)
    whole = (images / "a" / "3.png").read_bytes()
    (images / "a" / "3.png").write_bytes(whole[: len(whole) // 2])
    data = {"images": str(images)}
    result = benchmark(tmp_path, config(world, data=data))
    assert result.returncode == 1
    assert "a/3.png: not a readable image" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    (images / "a" / "3.png").write_bytes(whole)  # mended, the same command goes on
    assert benchmark(tmp_path, config(world, data=data)).returncode == 0
    save(images / "a" / "3.tif.png", torch.rand(3, 64, 64))
    Image.open(images / "a" / "3.png").save(images / "a" / "3.jpg")
    assert 'two images share the id "a/3"' in benchmark(tmp_path, config(world, data=data), out="two").stderr


def test_precomputed_folder_is_checked_as_a_whole(world, finished, tmp_path):
    outputs = tmp_path / "outputs"
    shutil.copytree(finished[0] / "images" / "bicubic", outputs)
    (outputs / "a" / "0.png").unlink()
    (outputs / "a" / "3.png").rename(outputs / "a" / "third.png")
    save(outputs / "b" / "1.png", torch.rand(3, 60, 64))
    result = benchmark(tmp_path, config(world, method=[{"kind": "precomputed", "folder": str(outputs)}]))
    assert "2 missing (first: a/0), 1 unknown (first: a/third), 1 not 64x64 (first: b/1, 64x60)" in result.stderr
    assert not (tmp_path / "run").exists()


def test_folders_of_something_else_are_refused(world, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    before = files(tmp_path / "run")
    result = benchmark(tmp_path, config(world, seed=5))
    assert result.returncode == 1
    assert 'holds a run of another config ("seed" differs)' in result.stderr
    assert files(tmp_path / "run") == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("-")
    assert "not empty" in benchmark(tmp_path, config(world), out="thesis").stderr
    assert "is this the folder of a finished run?" in command("table", tmp_path / "thesis").stderr


def test_a_full_disk_is_one_line(world, tmp_path):
    """A file-size limit stands in for the disk: writing fails in the same way, in the middle of a file."""
    (tmp_path / "config.toml").write_text(tomli_w.dumps(config(world)))
    arguments = ["run", str(tmp_path / "config.toml"), "--out", str(tmp_path / "run")]
    code = "import resource, signal, benchmark\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += f"resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\nbenchmark.main({arguments!r})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert "same command resumes" in result.stderr
    for path in (tmp_path / "run" / "images").rglob("*"):
        assert path.is_dir() or to_uint8(load(path)).shape[0] == 3  # nothing half-written
    assert benchmark(tmp_path, config(world)).returncode == 0


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_configs_are_valid(path):
    """As far as they can be checked without their data: keys, kinds, metrics and their options."""
    settings = RunConfig.parse(read_toml(path))
    assert RunConfig.parse(settings.plain()) == settings
    for method in settings.method:
        builder = methods.builder(method.kind)
        given = methods.of_run(builder, settings.task, with_path=False)
        check_call(builder, method.options, method.name, given)
    for name, options in settings.metrics:
        check_call(metrics.builder(name), options, name)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "train").glob("*.toml")), ids=lambda path: path.stem)
def test_training_recipes_are_valid(path):
    config = from_dict(TrainConfig, read_toml(path))
    assert path.stem.startswith("generator_") if config.generates else path.stem == f"{config.model}_{config.task}"
