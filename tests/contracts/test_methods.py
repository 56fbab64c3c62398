"""What every method must do: shape, range, dtype, seeds, order, untouched input, fingerprints."""

import runpy
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

import baselines
import sr3eval.diffusion.checkpoint as checkpoints
from baselines._fsrnet import SECTIONS, FSRNet
from baselines._janspiry_unet import Structure
from baselines._janspiry_unet import UNet as JanspiryUNet
from baselines._rrdb import RRDBNet
from baselines.realesrgan import Compact
from sr3eval import config as configs
from sr3eval import methods
from sr3eval.benchmark.config import MethodConfig
from sr3eval.benchmark.plan import build
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.method import Method
from sr3eval.tasks import TASKS

TASK = TASKS["photos_16_64"]
OWN_METHOD = """
from sr3eval.images import bicubic_up
from sr3eval.method import Method, Upscaled
class Mine(Method):
    name = "mine"
    def __init__(self, gain):
        self.gain, self.fingerprint = gain, f"mine {gain}"
    def upscale(self, lr, seeds, progress=None):
        return Upscaled((self.gain * bicubic_up(lr, (4 * lr.shape[2], 4 * lr.shape[3]))).clamp(0, 1))
def build(*, gain: float = 1.0):
    return Mine(gain)
"""


@dataclass(frozen=True)
class Case:
    """Options that build a kind, and others of which each must change the fingerprint. path: to another scale's."""

    options: dict[str, Any]
    variants: list[dict[str, Any]] = field(default_factory=list)
    path: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Mapping[str, Case]:
    """By kind; one that is not here is built without options."""
    folder = tmp_path_factory.mktemp("methods")
    (folder / "mine.py").write_text(OWN_METHOD)
    weights = {
        (model, seed): random_checkpoint(folder, model, seed) for model in ("sr3", "regression") for seed in (0, 1)
    }
    sr3 = {"checkpoint": weights["sr3", 0], "steps": 3}
    known = {
        "regression": Case({"checkpoint": weights["regression", 0]}, [{"checkpoint": weights["regression", 1]}]),
        "sr3": Case(
            sr3,
            [
                {"checkpoint": weights["sr3", 1]},
                {"steps": 4},
                {"variance": "posterior"},
                {"clip": True},
                {"spacing": "linear"},
            ],
        ),
        "cascade": Case(
            {"stages": [sr3]},
            [{"stages": [sr3 | {"steps": 4}]}, {"stages": [{"checkpoint": weights["regression", 0]}]}],
        ),
        "python": Case({"python": f"{folder / 'mine.py'}:build"}, [{"gain": 0.5}]),
        **baseline_cases(folder),
    }
    return defaultdict(lambda: Case({}), known)


def baseline_cases(folder) -> dict[str, Case]:
    """Each adapter on a reduced network with random weights, in a layout of its release; all enlarge 4 times."""
    unquantized: dict[str, Any] = {"quantize": "none"}
    esrgan = [save(folder / f"esrgan_{seed}.pth", randomised(RRDBNet(8, 2, 32), seed)) for seed in (0, 1)]
    compact = [save(folder / f"compact_{seed}.pth", randomised(Compact(8, 2), seed)) for seed in (0, 1)]
    structure = Structure(16, (16, 32), 1, (False, True), 16)
    janspiry = []
    for seed in (0, 1):
        state = {f"denoise_fn.{name}": t for name, t in randomised(JanspiryUNet(structure), seed).items()}
        janspiry.append(save(folder / f"{seed}_gen.pth", state))
    chain = {"scale": 4, "steps": 3, "linear_start": 0.05, "linear_end": 0.3, "norm_groups": 16}
    goldens = Path(__file__).parents[1] / "baselines" / "goldens"
    enhancenet = str(goldens / "enhancenet_weights")
    srflow_state = runpy.run_path(str(goldens / "srflow.py"))["state"]
    srflow = [save(folder / f"srflow_{seed}.pth", srflow_state("4X", seed)) for seed in (0, 1)]
    pulse = {key: save(folder / f"pulse_{key}.pt", state) for key, state in pulse_states(goldens).items()}
    fsrgan = [save(folder / f"fsrgan_{seed}.pth", fsrnet_state(seed)) for seed in (0, 1)]
    return {
        "esrgan": Case(
            {"weights": esrgan[0]},
            [{"weights": esrgan[1]}, unquantized, {"psnr_weights": esrgan[1], "alpha": 0.5}, {"tile": 4, "overlap": 1}],
        ),
        "realesrgan": Case({"weights": compact[0]}, [{"weights": compact[1]}, unquantized, {"tile": 4, "overlap": 1}]),
        "enhancenet": Case({"weights": enhancenet}, [unquantized, {"tile": 4, "overlap": 1}]),
        "sr3_janspiry": Case(
            {"weights": janspiry[0], **chain},
            [{"weights": janspiry[1]}, unquantized, {"steps": 4}, {"linear_end": 0.4}],
        ),
        "srflow": Case({"weights": srflow[0]}, [{"weights": srflow[1]}, unquantized, {"heat": 0.5}]),
        "fsrgan": Case(
            {"weights": fsrgan[0]},
            [{"weights": fsrgan[1]}, unquantized, {"statistics": "image"}],
            path=("method", "bicubic 64"),
        ),
        "pulse": Case(
            {"synthesis": pulse["synthesis"], "gaussian_fit": pulse["fit"], "scale": 4, "steps": 3},
            [{"synthesis": pulse["other"]}, {"gaussian_fit": pulse["other_fit"]}, unquantized, {"steps": 4}],
        ),
        "spandrel": Case({"weights": esrgan[0]}, [{"weights": esrgan[1]}, unquantized, {"tile": 4, "overlap": 1}]),
    }


def pulse_states(goldens) -> dict[str, dict[str, torch.Tensor]]:
    """Small generators of 64x64 pixels and fits for their latent vectors."""
    recipe = runpy.run_path(str(goldens / "pulse.py"))
    synthesis, fit = recipe["synthesis_state"], recipe["fit_state"]()
    other_fit = {"mean": fit["mean"] + 0.1, "std": fit["std"]}
    return {"synthesis": synthesis(), "other": synthesis(name="other"), "fit": fit, "other_fit": other_fit}


def fsrnet_state(seed) -> dict[str, torch.Tensor]:
    """A small FSRNet's in cydiachen's layout."""
    torch.manual_seed(seed)
    state = FSRNet(4, per_image=False, shared=False).state_dict()
    layers = {theirs: [key for key in state if key.startswith(f"{ours}.")] for theirs, ours in SECTIONS.items()}
    return {f"{theirs}.{key.partition('.')[2]}": state[key] for theirs, keys in layers.items() for key in keys}


def save(path, state) -> str:
    torch.save(state, path)
    return str(path)


def randomised(network, seed) -> dict[str, torch.Tensor]:
    """A state dict whose network gives pictures: random in every layer, and about 0.5."""
    torch.manual_seed(seed)
    state = {name: torch.randn_like(t) * 0.3 / t[0].numel() ** 0.5 for name, t in network.state_dict().items()}
    return state | {name: torch.full_like(t, 0.5) for name, t in state.items() if name == "conv_last.bias"}


def random_checkpoint(folder, model, seed) -> str:
    """A checkpoint with random weights, last convolution included."""
    config = configs.from_dict(
        TrainConfig,
        {
            "task": TASK.name,
            "model": model,
            "data": {"images": "unused"},
            "unet": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "image_size": 16},
            "optimiser": {"steps": 1, "batch_size": 1, "learning_rate": 1e-4, "warmup_steps": 0},
        },
    )
    torch.manual_seed(seed)
    network = precondition(model, config.network).unet
    torch.nn.init.normal_(network.conv_out.weight, std=0.02)
    path = folder / f"{model}_{seed}.safetensors"
    checkpoints.save(path, configs.to_dict(config), 1, network.state_dict())
    return str(path)


KINDS = [kind for kind in methods.available() if kind not in ("precomputed", "reference")]  # they cannot upscale


@pytest.fixture
def make(cases, request) -> Callable[..., Method]:
    def built(kind: str, **changed: Any) -> Method:
        method = build(MethodConfig(kind, kind, cases[kind].options | changed, cases[kind].path), TASK)
        assert isinstance(method, Method)
        return method

    return built


@pytest.fixture
def lr():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_contract(make, kind, lr):
    method = make(kind)
    before = lr.clone()
    sr = method.upscale(lr, [5, 6, 7]).images
    assert torch.equal(lr, before)
    assert sr.shape == (3, 3, 64, 64)
    assert sr.dtype == torch.float32
    assert 0 <= sr.min() <= sr.max() <= 1
    assert torch.equal(method.upscale(lr, [5, 6, 7]).images, sr)
    assert torch.equal(method.upscale(lr.flip(0), [7, 6, 5]).images, sr.flip(0))
    assert torch.equal(make(kind).upscale(lr, [5, 6, 7]).images, sr)
    assert method.stochastic is not torch.equal(method.upscale(lr, [8, 9, 10]).images, sr)


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprint_changes_with_everything_that_changes_outputs(make, cases, kind, lr):
    base = make(kind)
    assert make(kind).fingerprint == base.fingerprint
    for changed in cases[kind].variants:
        other = make(kind, **changed)
        assert other.fingerprint != base.fingerprint, changed
        assert not torch.equal(other.upscale(lr, [1, 2, 3]).images, base.upscale(lr, [1, 2, 3]).images), changed


# Largest difference of any pixel, in [0, 1]. PULSE searches by Adam, whose first step is nearly a sign function.
TOLERANCE = {"pulse": 0.1}


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_what_the_cpu_gives(make, kind, lr, tf32, monkeypatch, record_property):
    """In float32 to 1e-4, with TF32, which rounds factors to 11 bits, to 0.02; before rounding to 8 bit."""
    unquantized = {"quantize": "none"} if kind in baselines.available() else {}
    assert torch.cuda.is_available()
    on_gpu = make(kind, **unquantized).upscale(lr, [5, 6, 7]).images
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = make(kind, **unquantized).upscale(lr, [5, 6, 7]).images
    difference = float((on_gpu - on_cpu).abs().max())
    record_property("difference", f"{difference:.2e}")
    assert difference <= TOLERANCE.get(kind, 0.02 if tf32 else 1e-4)
