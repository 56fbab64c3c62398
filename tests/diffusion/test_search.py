"""`sr3eval search-schedule`: what it finds, what it keeps, and what `steps = N` takes of it."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from click.testing import CliRunner

from sr3eval.cli import main
from sr3eval.config import from_dict, read_toml, resolve_path
from sr3eval.diffusion import schedules
from sr3eval.diffusion.schedule import NoiseSchedule
from sr3eval.diffusion.search import Searcher, search
from sr3eval.diffusion.search_config import SearchConfig, SpaceConfig, neighbours
from sr3eval.diffusion.search_page import FIGURE
from sr3eval.diffusion.search_trial import Trial
from sr3eval.diffusion.solvers import DEFAULT, SamplerConfig, SamplerOptions
from sr3eval.diffusion.sr3 import SR3
from sr3eval.errors import UserError
from sr3eval.features.networks import efficientnet_lite0
from sr3eval.images import round_to_8bit
from sr3eval.methods import sr3
from sr3eval.metrics import Result
from sr3eval.metrics._contract import Estimate

ROOT = Path(__file__).parents[2]
FINAL_GAMMA = 4.4e-5
TINY = {"solver": ["dpmpp_2m"], "first_beta": [1e-4], "jump": [0.0]}


@pytest.fixture
def checkpoint(trained, tmp_path):
    """A copy of a tiny checkpoint, beside which files may be written."""
    return shutil.copy(trained["sr3"], tmp_path / "model.safetensors")


@pytest.fixture
def config(checkpoint, photos):
    def of(**options):
        data = {"images": str(photos), "crop": 16, "number": 12, "coarse": 6} | options.pop("data", {})
        given = {"checkpoint": str(checkpoint), "data": data, "budgets": [2, 4], "kept": 2, "rounds": 2} | options
        return from_dict(SearchConfig, given)

    return of


def silent(_stage, _done, _total):
    """Progress that nobody looks at."""


def bowl(sampler):
    """A distance with its least at eta 0.5 of the SDE's solver, jump 1 and first_beta 1e-3.5, less with more steps."""
    off = 0 if sampler.solver == "dpmpp_2m_sde" else 3
    jump = -9 if sampler.jump is None else sampler.jump
    eta = 1 if sampler.eta is None else sampler.eta
    beta = math.log10(sampler.first_beta)
    return 10 / sampler.steps + off + (jump - 1) ** 2 + (beta + 3.5) ** 2 + 4 * (eta - 0.5) ** 2


@pytest.fixture
def tried(monkeypatch):
    """Distances come from `bowl`; the samplers that were asked for."""
    asked = []

    def distance(_searcher, sampler, images, seed, _progress):
        asked.append((sampler, len(images), seed))
        value = bowl(sampler)
        return Result(value, 12, without={"a": Estimate(value - 1, 6), "b": Estimate(value + 1, 6)})

    monkeypatch.setattr(Searcher, "distance", distance)
    return asked


def test_from_coarse_to_fine_it_finds_the_least(config, tmp_path, tried):
    found = search(config(space={"jump": [-2.0, 0.0, 2.0]}), tmp_path / "out", silent)
    assert [best.sampler.steps for best in found.found] == [2, 4]
    for best in found.found:
        assert best.sampler.solver == "dpmpp_2m_sde" and best.sampler.eta == 0.5
        assert best.sampler.jump == pytest.approx(1, abs=0.5)
        assert math.log10(best.sampler.first_beta) == pytest.approx(-3.5, abs=0.26)  # coarse: 0.5 off
        assert best.distance == pytest.approx(bowl(best.sampler))
    coarse = [sampler for sampler, images, _ in tried if images == 6]
    space = SpaceConfig(jump=(-2.0, 0.0, 2.0)).samplers(4, FINAL_GAMMA)
    assert set(space) == {sampler for sampler in coarse if sampler.steps == 4}
    assert len(space) == (1 + 3 + 1 + 3 - 2) * 2 * 4  # solvers and etas but twins, first_betas, jumps and none
    assert found.recommended == 4


def test_what_two_names_stand_for_is_tried_once():
    """Two steps with a jump have no level left for first_beta; ddim with all its noise is ancestral."""
    samplers = SpaceConfig(jump=(0.0,)).samplers(2, FINAL_GAMMA)
    kinds = {(sampler.solver, sampler.eta) for sampler in samplers}
    assert kinds == {
        ("ancestral", None),
        ("ddim", 0),
        ("ddim", 0.5),
        ("dpmpp_2m", None),
        ("dpmpp_2m_sde", 0.5),
        ("dpmpp_2m_sde", 1),
    }
    assert len(samplers) == len(kinds) * (2 + 1)

    def model(x, y, gamma):
        return (x + y).tanh() * gamma[:, None, None, None]

    x = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    twins = [SamplerConfig(3, "ancestral", variance="posterior", clip=True), SamplerConfig(3, "ddim", 1.0, clip=True)]
    ancestral, ddim = ([*twin.refine(model, x, FINAL_GAMMA, noise(x))][-1] for twin in twins)
    torch.testing.assert_close(ancestral, ddim)


def noise(x):
    """A source that gives the same noise each time that it is made."""
    generator = torch.Generator().manual_seed(0)
    return lambda: torch.randn(x.shape, generator=generator)


def test_large_budgets_try_what_smaller_ones_kept(config, tmp_path, tried):
    search(config(budgets=[8, 2, 4], kept=2, thorough=2, rounds=1), tmp_path / "out", silent)
    best = min((sampler for sampler, images, _ in tried if sampler.steps == 2 and images == 12), key=bowl)
    coarse = sorted((s for s, images, _ in tried if s.steps == 2 and images == 6), key=bowl)[:2]
    for steps in (4, 8):
        searched = [(sampler, images) for sampler, images, seed in tried if sampler.steps == steps and seed == 0]
        assert searched == [(replace(sampler, steps=steps), 6) for sampler in [*coarse, best]]


def test_an_interrupted_search_resumes_with_the_same_bytes(config, checkpoint, tmp_path, tried):
    search(config(), tmp_path / "whole", silent)
    schedules.beside(checkpoint).unlink()
    trials = len(tried)
    tried.clear()

    def stop(_stage, _done, _total):
        if len(tried) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(config(), tmp_path / "parts", stop)
    with (tmp_path / "parts" / "trials.jsonl").open("a") as file:
        file.write('{"key": "cut o')
    search(config(), tmp_path / "parts", silent)
    assert len(tried) == trials  # none twice
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes(), path.name


def test_schedules_of_another_search_are_not_replaced(config, checkpoint, tmp_path, tried):
    search(config(), tmp_path / "first", silent)
    kept, trials = schedules.beside(checkpoint).read_bytes(), len(tried)
    search(config(), tmp_path / "first", silent)  # its own it may write again
    with pytest.raises(UserError, match=r"model\.schedules\.json: already exists, from another search; move it"):
        search(config(budgets=[2]), tmp_path / "second", silent)
    assert schedules.beside(checkpoint).read_bytes() == kept and len(tried) == trials
    assert not (tmp_path / "second").exists()


def test_another_config_does_not_take_its_folder(config, tmp_path, tried):
    search(config(), tmp_path / "out", silent)
    with pytest.raises(UserError, match="another config"):
        search(config(budgets=[2]), tmp_path / "out", silent)


def test_a_winners_worth_is_the_frechet_distance_of_other_crops(config, tmp_path):
    """The same pictures made by the method, their features by the network, the distance by scipy."""
    settings = config(budgets=[2], space=TINY, rounds=0)
    found = search(settings, tmp_path / "out", silent)
    searcher = Searcher(settings)
    images = searcher.others
    assert set(images.ids).isdisjoint(searcher.images.ids) and len(images) == 12
    assert list(images.blocks) == [image_id.partition("#")[0] for image_id in images.ids]  # six photographs
    method = SR3(searcher.weights, found.found[0].sampler)
    seeds = [from_identity(image_id) for image_id in images.ids]
    sr = round_to_8bit(method.upscale(images.lr, seeds).images)
    own, hr = (efficientnet_lite0().look(x).pooled.double().numpy() for x in (sr, images.hr))
    root = scipy.linalg.sqrtm(np.cov(own.T) @ np.cov(hr.T) + 1e-9 * np.eye(own.shape[1]))
    expected = np.square(own.mean(0) - hr.mean(0)).sum() + np.trace(np.cov(own.T)) + np.trace(np.cov(hr.T))
    assert found.found[0].distance == pytest.approx(expected - 2 * np.trace(root.real), rel=2e-3)


def from_identity(image_id):
    from sr3eval.folders import stable_hash

    return stable_hash(0, 1, image_id)


def test_the_command_keeps_schedules_beside_the_checkpoint(checkpoint, photos, tmp_path):
    text = f'checkpoint = "{checkpoint}"\nbudgets = [1, 2]\nkept = 1\nrounds = 0\n'
    text += f'[data]\nimages = "{photos}"\ncrop = 16\nnumber = 4\ncoarse = 2\n'
    text += '[space]\nsolver = ["dpmpp_2m"]\n[reference.paper]\nsteps = 3\n'
    (tmp_path / "small.toml").write_text(text)
    done = CliRunner().invoke(main, ["search-schedule", str(tmp_path / "small.toml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "search.html").read_text()
    assert "less paper's" in page and (tmp_path / "out" / FIGURE).read_text().startswith("<svg")
    beside = checkpoint.with_name("model.schedules.json")
    assert beside.read_bytes() == (tmp_path / "out" / "schedules.json").read_bytes()
    found = json.loads(beside.read_text())["found"]
    assert sr3.build(checkpoint=str(checkpoint), sampler=SamplerOptions(steps=2)).sampler == from_dict(
        SamplerConfig, found[1]["sampler"]
    )


@pytest.fixture
def kept(checkpoint):
    """Schedules beside the checkpoint: what they hold, and its sha256."""
    sha256 = sr3.build(checkpoint=str(checkpoint), sampler=SamplerOptions(solver="ddim")).facts.checksums["checkpoint"]
    samplers = [SamplerConfig(2, "ddim"), SamplerConfig(8, "dpmpp_2m", clip=True, jump=1.0)]
    found = tuple(schedules.Found(sampler, 3.0, 2.0, 4.0) for sampler in samplers)
    written = schedules.Schedules(sha256, "FD", "crops", 8, found)
    schedules.save(schedules.beside(checkpoint), written)
    return written, sha256


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, SamplerConfig(8, "dpmpp_2m", clip=True, jump=1.0)),
        ({"steps": 2}, SamplerConfig(2, "ddim")),
        ({"steps": 3}, SamplerConfig(3, "ddim")),
        ({"steps": 5}, SamplerConfig(5, "dpmpp_2m", clip=True, jump=1.0)),  # 5 / 2 is more than 8 / 5
        ({"steps": 100}, SamplerConfig(100, "dpmpp_2m", clip=True, jump=1.0)),
        ({"steps": 2, "clip": False}, SamplerConfig(2, "ancestral")),
        ({"solver": "ancestral"}, SamplerConfig(100, "ancestral")),
    ],
)
def test_what_steps_take(checkpoint, kept, options, expected):
    assert schedules.choose(str(checkpoint), kept[1], SamplerOptions(**options)) == expected


def test_without_a_search_the_default_is_taken(checkpoint):
    assert schedules.choose(str(checkpoint), "", SamplerOptions()) == DEFAULT
    assert schedules.choose(str(checkpoint), "", SamplerOptions(steps=7)) == replace(DEFAULT, steps=7)


def test_schedules_of_another_checkpoint_or_damaged_are_refused(checkpoint, kept):
    with pytest.raises(UserError, match=r"was searched for another checkpoint .* name a solver"):
        schedules.choose(str(checkpoint), "0" * 64, SamplerOptions(steps=2))
    schedules.beside(checkpoint).write_text('{"checkpoint": ')
    with pytest.raises(UserError, match=r"model\.schedules\.json: cannot be read"):
        schedules.choose(str(checkpoint), kept[1], SamplerOptions(steps=2))


def test_differences_are_jackknifed_block_by_block():
    """Three blocks of two images each: of pseudo-values 3 d - 2 d_without, the standard error of their mean."""
    a = Trial(SamplerConfig(1), 5.0, {"x": (4.0, 4), "y": (7.0, 4), "z": (5.0, 4)}, 6)
    b = Trial(SamplerConfig(2), 3.0, {"x": (3.0, 4), "y": (4.0, 4), "z": (3.5, 4)}, 6)
    difference, low, high = a.worse_than(b)
    pseudo = np.array([3 * 2 - 2 * 1, 3 * 2 - 2 * 3, 3 * 2 - 2 * 1.5])
    half = 4.302652730 * pseudo.std(ddof=1) / math.sqrt(3)  # Student's t with two degrees of freedom
    assert difference == 2 and (low, high) == pytest.approx((2 - half, 2 + half))


def test_one_step_has_one_sampler_and_no_neighbours():
    samplers = SpaceConfig(clip=(True, False)).samplers(1, FINAL_GAMMA)
    assert samplers == [SamplerConfig(1, "dpmpp_2m", clip=clip) for clip in (True, False)]
    assert list(neighbours(samplers[0], 1.0)) == []


def test_levels_that_do_not_fit_are_left_out():
    samplers = SpaceConfig(solver=("dpmpp_2m",), first_beta=(1e-4, 0.9), jump=(0.0,)).samplers(4, FINAL_GAMMA)
    assert {(sampler.first_beta, sampler.jump) for sampler in samplers} == {(1e-4, None), (1e-4, 0.0), (0.9, None)}
    for sampler in samplers:
        assert isinstance(sampler.schedule(FINAL_GAMMA), NoiseSchedule)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgets": [0, 4]}, "all at least 1"),
        ({"budgets": [4, 4]}, "must be different"),
        ({"thorough": 1}, "thorough: 1 is below every budget"),
        ({"kept": 0}, "kept, seeds and batch_size must be at least 1"),
        ({"data": {"coarse": 13}}, "data.coarse: 13 is not between 2 and data.number, 12"),
        ({"data": {"crop": 18}}, "data.crop: 18 is not a multiple"),
        ({"data": {"crop": None, "number": 500}}, r"1000 are needed"),
        ({"space": {"solver": ["dpmpp_2m", "heun"]}}, '"space.solver.*" is .heun.'),
        ({"space": {"eta": []}}, "space.eta: is empty"),
        ({"space": {"eta": [2.0]}}, "eta: only for"),
        ({"space": {"first_beta": [2.0]}}, "space: none of its noise levels fits the checkpoint's, for 2 steps"),
        ({"metric": {"name": "fdd"}}, 'unknown metric "fdd"'),
        ({"metric": {"name": "psnr"}}, "psnr: is a mean over images, not a metric of whole sets"),
        ({"reference": {"far": {"steps": 4, "jump": 20.0}}}, "reference.far: its noise levels do not fit"),
    ],
)
def test_bad_configs_are_one_line_before_any_work(config, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        search(config(**options), tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_regression_has_no_schedule_to_search(config, trained, tmp_path):
    with pytest.raises(UserError, match="a regression checkpoint, not sr3"):
        search(config(checkpoint=trained["regression"]), tmp_path / "out", silent)


def test_steps_below_one_are_refused():
    with pytest.raises(UserError, match="0 steps; at least 1 is needed"):
        SamplerOptions(steps=0)


def test_images_do_not_depend_on_the_batch(config, tmp_path):
    """The distance of batches of 5 is that of batches of 12, up to the last bits of convolutions."""
    sampler = SamplerConfig(2, "dpmpp_2m", clip=True)
    values, told = [], []
    for batch_size in (5, 12):
        searcher = Searcher(config(batch_size=batch_size))
        values.append(searcher.distance(sampler, searcher.images, 0, told.append).value)
    assert values[0] == pytest.approx(values[1], rel=1e-3)
    assert told == [2.5, 5, 7.5, 10, 11, 12, 6, 12]  # two steps a batch
    assert torch.equal(searcher.images.hr, Searcher(config()).images.hr)


def test_the_embedded_schedules_are_those_of_the_embedded_checkpoint():
    embedded = "sr3eval:assets/sr3_photos_16_64.safetensors"
    sampler = sr3.build(checkpoint=embedded, sampler=SamplerOptions(steps=8)).sampler
    found = json.loads(schedules.beside(resolve_path(embedded)).read_text())["found"]
    assert sampler == from_dict(SamplerConfig, next(b["sampler"] for b in found if b["sampler"]["steps"] == 8))


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "search").glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_are_valid(path):
    config = from_dict(SearchConfig, read_toml(path))
    if config.checkpoint.startswith("sr3eval:"):  # which is here
        assert Searcher(config).final_gamma > 0
