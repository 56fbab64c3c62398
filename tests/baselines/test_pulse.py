"""PULSE against goldens of its own code (see goldens/pulse.py), its search's parts, and its contract."""

import functools
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import baselines
from baselines import _stylegan, pulse
from baselines._pulse_search import OPTIMISERS, Search, downscaling, parsed_layers, parsed_loss, radius, rate
from sr3eval.errors import UserError
from sr3eval.images import bicubic_down
from sr3eval.method import Method

FOLDER = Path(__file__).parent / "goldens"
recipe = SimpleNamespace(**runpy.run_path(str(FOLDER / "pulse.py")))
GOLDEN = np.load(FOLDER / "pulse.npz")
SCALE = 64 // recipe.LR_SIZE
OFFICIAL = {"scale": SCALE, "steps": recipe.STEPS}
pytestmark = pytest.mark.usefixtures("one_thread")


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pulse")
    recipe.write(folder)
    return folder


@pytest.fixture
def make(files):
    def built(**options) -> pulse.PULSE:
        given = {"synthesis": str(files / "synthesis.pt"), "gaussian_fit": str(files / "gaussian_fit.pt")}
        return baselines.load("pulse", **given | OFFICIAL | options)

    return built


@pytest.fixture
def recorded(monkeypatch):
    """The recipe's numbers in place of each image's own."""

    def drawing(seed, device):
        draws = recipe.Draws()
        return lambda shape: draws(shape).to(device)

    monkeypatch.setattr(pulse, "drawing", drawing)


@pytest.fixture
def losses(monkeypatch):
    """What `Search.evaluate` returns, step by step: total loss and L2."""
    seen = []
    evaluate = Search.evaluate

    def watched(self):
        image, loss, l2 = evaluate(self)
        seen.append((loss.item(), l2.item()))
        return image, loss, l2

    monkeypatch.setattr(Search, "evaluate", watched)
    return seen


# The networks


def test_released_layout():
    """24,110,771 parameters and 72 numbers of buffers in 100 tensors, says the released network."""
    released = recipe.shapes(recipe.RELEASED)
    assert len(released) == 100
    assert sum(np.prod(shape) for shape in released.values()) == 24_110_771 + 72


@torch.no_grad()
def test_network(tmp_path):
    """With both ways of enlarging, of which the release has one below 128 pixels and one from there on."""
    torch.save(recipe.synthesis_state(recipe.MEDIUM), tmp_path / "synthesis.pt")
    network, _ = _stylegan.synthesis_network(str(tmp_path / "synthesis.pt"))
    latents, noises = recipe.network_inputs(recipe.MEDIUM)
    image = network(latents, [noise[0] for noise in noises])
    assert image.shape == (1, 3, 128, 128)
    torch.testing.assert_close(image[..., ::3, ::3], golden("network"), atol=1e-4, rtol=0)


def test_fit_of_the_mapping_network(files):
    network, _ = _stylegan.mapping_network(str(files / "mapping.pt"))
    mean, deviation = pulse.fitted(network, torch.device("cpu"), samples=recipe.FIT_SAMPLES)
    torch.testing.assert_close(mean, golden("mean"), atol=1e-4, rtol=0)
    torch.testing.assert_close(deviation, golden("std"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("at_once", [16, 144, 400])
def test_fit_does_not_depend_on_how_many_vectors_are_drawn_at_once(files, monkeypatch, at_once):
    network, _ = _stylegan.mapping_network(str(files / "mapping.pt"))
    whole = pulse.fitted(network, torch.device("cpu"), samples=203)
    monkeypatch.setattr(pulse, "AT_ONCE", at_once)
    for part, expected in zip(pulse.fitted(network, torch.device("cpu"), samples=203), whole, strict=True):
        torch.testing.assert_close(part, expected, atol=1e-5, rtol=0)


def test_mapping_in_place_of_the_fit(files, make, monkeypatch):
    monkeypatch.setattr(pulse, "fitted", functools.partial(pulse.fitted, samples=100))
    method = make(gaussian_fit=None, mapping=str(files / "mapping.pt"))
    assert set(method.facts.checksums) == {"synthesis", "mapping"}
    assert method.fingerprint != make().fingerprint
    images = [m.upscale(recipe.low_resolution(), [1]).images for m in (method, make())]
    assert not torch.equal(*images)


# The search


@pytest.mark.parametrize("case", recipe.CASES)
def test_search(make, recorded, losses, case):
    """The sequence of losses, and the image that run.py would write."""
    method = make(quantize="none", **recipe.CASES[case])
    upscaled = method.upscale(recipe.low_resolution(), [0])
    image, notes = upscaled.images, upscaled.notes
    expected = golden(f"{case} losses")
    found = torch.tensor(losses, dtype=torch.float64)
    found[:, 1] = found[:, 1].clamp(min=method.settings.eps)
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-3)
    torch.testing.assert_close(image[..., ::3, ::3], golden(f"{case} image").clamp(0, 1), atol=1e-3, rtol=0)
    assert notes[0]["converged"] == bool(golden(f"{case} yielded"))
    assert notes[0]["loss"] == pytest.approx(expected[-1, 0].item(), rel=1e-3)
    assert notes[0]["steps"] == recipe.STEPS


def test_official_rule_gives_the_official_levels(make, recorded):
    levels = make(**recipe.CASES["clamped"]).upscale(recipe.low_resolution(), [0]).images * 255
    assert torch.equal(levels.round() / 255, levels / 255)
    differences = (levels.round()[0] - golden("clamped png")).abs()
    assert differences.max() <= 1
    assert (differences > 0).float().mean() < 1e-2  # values within the last bits of a level


def test_best_or_last(make, recorded, losses):
    """In this case the third image is the best of four."""
    options = {"quantize": "none", **recipe.CASES["sgdm"]}
    totals = golden("sgdm losses")[:, 0]
    assert totals.argmin() == recipe.STEPS - 2
    upscaled = make(**options).upscale(recipe.low_resolution(), [0])
    last, (note,) = upscaled.images, upscaled.notes
    upscaled = make(returned="best", **options).upscale(recipe.low_resolution(), [0])
    best, (best_note,) = upscaled.images, upscaled.notes
    assert note["loss"] == losses[recipe.STEPS - 1][0]
    assert best_note["loss"] == losses[2 * recipe.STEPS - 2][0] < note["loss"]
    assert best_note["l2"] == losses[2 * recipe.STEPS - 2][1]
    for image, noted in ((last, note), (best, best_note)):
        shrink = downscaling(64, recipe.LR_SIZE)
        error = shrink @ image[0] @ shrink.T - recipe.low_resolution()[0]
        assert error.square().mean().item() == pytest.approx(noted["l2"], rel=1e-2)  # which saw no clamping


@pytest.mark.parametrize("returned", ["last", "best"])
def test_converged_says_whether_any_step_came_within_eps(make, recorded, losses, returned):
    """The third of four comes nearest, and the last one lies outside again."""
    lr, make = recipe.low_resolution(), functools.partial(make, **recipe.CASES["sgdm"])
    make().upscale(lr, [0])
    least = min(l2 for _, l2 in losses)
    for eps, converged in ((0.0, False), (least * 0.999, False), (least * 1.001, True), (10.0, True)):
        upscaled = make(eps=eps, returned=returned).upscale(lr, [0])
        image, notes = upscaled.images, upscaled.notes
        assert notes[0]["converged"] == converged
        assert eps > 1 or losses[-1][1] > eps
        assert image.shape == (1, 3, 64, 64)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("tiled", [False, True])
def test_variables_stay_on_their_spheres(make, optimiser, tiled):
    method = make(opt_name=optimiser, tile_latent=tiled, learning_rate=3.0)
    search = searching(method)
    before = [variable.detach().clone() for variable in search.variables]
    assert len(before) == 6
    assert before[0].shape == (1 if tiled else 10, recipe.LATENT)
    for _ in search.iterates():
        pass
    for start, end in zip(before, search.variables, strict=True):
        assert not torch.equal(start, end)
        axes = tuple(range(1, start.ndim))
        torch.testing.assert_close(end.detach().norm(dim=axes), start.norm(dim=axes), rtol=1e-5, atol=0)


def searching(method, seed=3) -> Search:
    draw = pulse.drawing(seed, method.device)
    return Search(method.network, method.fit, recipe.low_resolution()[0].to(method.device), method.settings, draw)


@pytest.mark.parametrize(
    ("options", "drawn", "trained"),
    [
        ({"noise_type": "zero"}, [], []),
        ({"noise_type": "fixed"}, range(10), []),
        ({"num_trainable_noise_layers": 2}, range(10), [0, 1]),
        ({"num_trainable_noise_layers": 99, "bad_noise_layers": ""}, range(10), range(10)),
        ({"bad_noise_layers": "1.3"}, [0, 2, 4, 5, 6, 7, 8, 9], [0, 2, 4]),
    ],
)
def test_numbers_are_drawn_as_after_a_manual_seed(make, options, drawn, trained):
    """Latent vectors, then noise maps, none for bad layers; seed 0 is one like any other."""
    for seed in (0, 3):
        search = searching(make(**options), seed)
        torch.manual_seed(seed)
        assert torch.equal(search.latent.detach().cpu(), torch.randn(1, 10, 512)[0])
        for layer, noise in enumerate(search.noises):
            if layer in drawn:
                side = 2 ** (layer // 2 + 2)
                assert torch.equal(noise.detach().cpu(), torch.randn(1, 1, side, side)[0])
                assert noise.requires_grad == (layer in trained)
            else:
                assert noise is None


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 100])
def test_schedules(steps):
    """Straight lines between corners."""
    x = np.arange(steps)
    corners = {
        "fixed": ([0, steps], [1, 1]),
        "linear1cycle": ([0, steps / 2, steps], [0.1, 1, 0.1]),
        "linear1cycledrop": ([0, 0.45 * steps, 0.9 * steps, steps], [0.1, 1, 0.1, 0.001]),
    }
    for name, points in corners.items():
        np.testing.assert_allclose([rate(name, step, steps) for step in x], np.interp(x, *points), atol=1e-12)


def test_rates_reach_the_optimiser(make):
    method = make(opt_name="sgd", steps=5)
    search = searching(method)
    rates = []
    search.optimiser.step = lambda: rates.append(search.optimiser.param_groups[0]["lr"])
    for _ in search.iterates():
        pass
    assert rates == [0.4 * rate("linear1cycledrop", step, 5) for step in range(4)]


@pytest.mark.parametrize("size", [2, 4, 16])
def test_downscaling(size):
    image, shrink = recipe.drawn("image", (1, 3, 32, 32)), downscaling(32, size)
    torch.testing.assert_close(shrink @ image @ shrink.T, golden(f"shrunk_{size}"), atol=1e-6, rtol=0)


def test_downscaling_is_that_of_the_benchmark_away_from_edges():
    image, shrink = recipe.drawn("image", (1, 3, 64, 64)), downscaling(64, 16)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close((shrink @ image @ shrink.T)[inner], bicubic_down(image, (16, 16))[inner])


def test_radius():
    torch.testing.assert_close(radius(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), torch.tensor([[5.0], [1e-9**0.5]]))
    assert radius(torch.ones(1, 4, 4)).shape == (1, 1, 1)


def test_texts_of_options():
    assert parsed_loss("100*L2+0.05*GEOCROSS") == {"L2": 100.0, "GEOCROSS": 0.05}
    assert parsed_loss("1*L1 + 2*L1") == {"L1": 3.0}
    assert parsed_layers("17") == {17} and parsed_layers("0.2.9") == {0, 2, 9} and parsed_layers("") == set()


# The method


@pytest.fixture
def lr():
    return recipe.low_resolution(count=3)


def test_contract(make, lr):
    method = make()
    assert isinstance(method, Method)
    assert (method.name, method.scale, method.lr_size) == ("pulse", SCALE, recipe.LR_SIZE)
    assert method.facts.architecture == "StyleGAN, 64x64"
    assert method.one_by_one  # a batch takes as long as its images, and runs lose what is unfinished
    assert {name: len(digest) for name, digest in method.facts.checksums.items()} == {
        "synthesis": 64,
        "gaussian_fit": 64,
    }
    before = lr.clone()
    sr = method.upscale(lr, [5, 6, 7]).images
    assert torch.equal(lr, before)
    assert sr.shape == (3, 3, 64, 64) and sr.dtype == torch.float32
    assert 0 <= sr.min() < sr.max() <= 1
    assert torch.equal(method.upscale(lr, [5, 6, 7]).images, sr)
    assert torch.equal(make().upscale(lr.flip(0), [7, 6, 5]).images, sr.flip(0))
    assert not torch.equal(method.upscale(lr[:1], [8]).images[0], sr[0])


def test_no_image_depends_on_those_beside_it(make, lr):
    method = make(quantize="none", eps=0.05)
    upscaled = method.upscale(lr, [5, 6, 7])
    sr, notes = upscaled.images, upscaled.notes
    for i, seed in enumerate([5, 6, 7]):
        upscaled = method.upscale(lr[i : i + 1], [seed])
        alone, note = upscaled.images, upscaled.notes
        assert torch.equal(alone[0], sr[i])
        assert note == [notes[i]]


def test_callers_that_need_no_gradient(make, lr):
    method = make(quantize="none")
    expected = method.upscale(lr[:1], [0]).images
    with torch.no_grad():
        assert torch.equal(method.upscale(lr[:1], [0]).images, expected)
    with torch.inference_mode():
        assert torch.equal(method.upscale(lr[:1].clone(), [0]).images, expected)  # of a tensor of that mode


def test_steps_are_counted_and_leave_the_callers_mode_alone(make, lr):
    shares = []

    def told(share):
        assert not torch.is_grad_enabled()
        shares.append(share)

    with torch.no_grad():
        upscaled = make().upscale(lr[:2], [0, 1], told)
    assert shares == [step / 8 for step in range(1, 9)]
    assert torch.equal(upscaled.images, make().upscale(lr[:2], [0, 1]).images)
    assert len(upscaled.notes) == 2 and set(upscaled.notes[0]) == {"converged", "steps", "loss", "l2"}


@pytest.mark.parametrize(
    "changed",
    [
        {"returned": "best"},
        {"quantize": "none"},
        {"loss_str": "100*L2"},
        {"eps": 0.1},
        {"noise_type": "zero"},
        {"noise_type": "fixed"},
        {"num_trainable_noise_layers": 4},
        {"bad_noise_layers": "9"},
        {"tile_latent": True},
        {"opt_name": "sgd"},
        {"learning_rate": 3.9},
        {"steps": 3},
        {"lr_schedule": "fixed"},
    ],
    ids=str,
)
def test_fingerprint_changes_with_settings(make, recorded, changed):
    options = recipe.CASES["sgdm"]
    base, other = make(**options), make(**options | changed)
    assert make(**options).fingerprint == base.fingerprint != other.fingerprint
    assert not torch.equal(*(method.upscale(recipe.low_resolution(), [0]).images for method in (base, other)))


def test_fingerprint_changes_with_scale_and_weights(make, tmp_path):
    torch.save(recipe.synthesis_state(name="other"), tmp_path / "synthesis.pt")
    torch.save(recipe.fit_state() | {"mean": torch.zeros(recipe.LATENT)}, tmp_path / "fit.pt")
    changes = [{"synthesis": str(tmp_path / "synthesis.pt")}, {"gaussian_fit": str(tmp_path / "fit.pt")}, {"scale": 4}]
    assert len({make(**changed).fingerprint for changed in ({}, *changes)}) == 4


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_str": "100*L3"}, 'loss_str = "100*L3": write it as "100*L2+0.05*GEOCROSS"'),
        ({"loss_str": "L2"}, 'loss_str = "L2": write it as'),
        ({"loss_str": ""}, "write it as"),
        ({"loss_str": "1*L2*3"}, "write it as"),
        ({"loss_str": "nan*L2"}, "write it as"),
        ({"eps": -1.0}, "eps = -1.0: must be at least 0"),
        ({"noise_type": "random"}, "noise_type\" is 'random': valid: fixed, trainable, zero"),
        ({"num_trainable_noise_layers": -1}, "num_trainable_noise_layers = -1: must be at least 0"),
        ({"bad_noise_layers": "1,2"}, 'bad_noise_layers = "1,2": write it as "3.17", of the layers 0 to 17'),
        ({"bad_noise_layers": "18"}, "of the layers 0 to 17"),
        ({"opt_name": "adamw"}, "opt_name\" is 'adamw': did you mean"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0: must be positive"),
        ({"steps": 0}, "steps = 0: must be at least 1"),
        ({"lr_schedule": "linear"}, "lr_schedule\" is 'linear': did you mean"),
        ({"returned": "first"}, "returned\" is 'first'"),
        ({"scale": 3}, "scale = 3: must be a power of 2, of 2 to 32 for this generator"),
        ({"scale": 64}, "of 2 to 32"),
        ({"gaussian_fit": None}, "needs gaussian_fit"),
        ({"mapping": "mapping.pt"}, "needs gaussian_fit"),
    ],
    ids=str,
)
def test_options_out_of_range(make, options, message):
    with pytest.raises(UserError) as error:
        make(**options)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("size", [(7, 7), (16, 16), (8, 7)])
def test_other_sizes(make, size):
    with pytest.raises(UserError, match=f"enlarges 8x8 pixels .*, not {size[0]}x{size[1]}"):
        make().upscale(torch.rand(1, 3, *size), [0])


@pytest.mark.parametrize(
    ("option", "file", "message"),
    [
        ("synthesis", "mapping.pt", r"StyleGAN \(synthesis.pt\) .*; it looks like PULSE's StyleGAN \(mapping.pt\)"),
        ("synthesis", "gaussian_fit.pt", r"StyleGAN \(synthesis.pt\) \(no layers of it\)"),
        ("gaussian_fit", "synthesis.pt", r"PULSE's gaussian_fit.pt .*; it looks like .*\(synthesis.pt\)"),
        ("mapping", "synthesis.pt", r"StyleGAN \(mapping.pt\) .*; it looks like .*\(synthesis.pt\)"),
        ("mapping", "gaussian_fit.pt", r"StyleGAN \(mapping.pt\) \(no layers of it\)"),
        ("synthesis", "none.pt", "cannot be read"),
    ],
)
def test_files_given_for_others(make, files, option, file, message):
    fit = {"gaussian_fit": None} if option == "mapping" else {}
    with pytest.raises(UserError, match=message):
        make(**fit | {option: str(files / file)})


def broken(change) -> dict[str, torch.Tensor]:
    state = recipe.synthesis_state()
    change(state)
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (broken(lambda state: state.pop("torgb.bias")), "1 keys differ, first torgb.bias: None, not (3,)"),
        (broken(lambda state: state.pop("blocks.8x8.conv0_up.intermediate.kernel")), "intermediate.kernel: None"),
        (broken(lambda state: state.update(more=torch.zeros(1))), "first more: (1,), not None"),
        (broken(lambda state: state.update({"torgb.weight": torch.zeros(3, 5, 1, 1)})), "first torgb.weight"),
        (broken(lambda state: state.update({"blocks.8x8.conv0_up.weight": torch.zeros(8)})), "conv0_up.weight: (8,)"),
        (broken(lambda state: state.update({"blocks.64x64.conv1.weight": torch.zeros(())})), "conv1.weight: ()"),
    ],
)
def test_other_layouts(make, tmp_path, state, message):
    torch.save(state, tmp_path / "synthesis.pt")
    with pytest.raises(UserError) as error:
        make(synthesis=str(tmp_path / "synthesis.pt"))
    assert message in str(error.value)


def test_files_of_other_latent_sizes(make, tmp_path):
    torch.save(recipe.fit_state(8), tmp_path / "fit.pt")
    with pytest.raises(UserError, match="not a mean and a std of 512 numbers each"):
        make(gaussian_fit=str(tmp_path / "fit.pt"))
    torch.save(recipe.mapping_state(8), tmp_path / "mapping.pt")
    with pytest.raises(UserError, match="latent vectors of 8 numbers, where the generator takes 512"):
        make(gaussian_fit=None, mapping=str(tmp_path / "mapping.pt"))


def test_half_precision_files_compute_in_float32(make, tmp_path, lr):
    halves = {key: tensor.half() for key, tensor in recipe.synthesis_state().items()}
    for name, state in (("half", halves), ("float", {key: tensor.float() for key, tensor in halves.items()})):
        torch.save(state, tmp_path / f"{name}.pt")
    images = [make(synthesis=str(tmp_path / f"{name}.pt")).upscale(lr, [0, 1, 2]).images for name in ("half", "float")]
    assert torch.equal(*images)
