"""openai's networks, losses and samplers, against what their own code gives (goldens/openai.py)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sr3eval.diffusion import generator, openai
from sr3eval.diffusion.generator_loss import VLB_WEIGHT, Levels, generator_loss
from sr3eval.diffusion.openai import GUIDED, IMPROVED, Network
from sr3eval.diffusion.schedule import NoiseSchedule
from sr3eval.diffusion.solvers import refine
from sr3eval.errors import UserError
from sr3eval.weights import FOLDER, read
from sr3eval.weights.state_dict import identify
from tests.diffusion.goldens import openai as official

GOLDENS = np.load(Path(official.__file__).with_suffix(".npz"))
CPU = torch.device("cpu")
SMALL = {"channels": 32, "multipliers": (1, 2, 3), "blocks": 2, "classes": 5}
STRUCTURES = {"guided": replace(GUIDED, head_channels=32, **SMALL), "improved": replace(IMPROVED, **SMALL)}


def golden(name):
    return torch.from_numpy(GOLDENS[name])


def small(kind):
    network = Network(STRUCTURES[kind])
    state = {k: torch.from_numpy(official.weight(k, tuple(v.shape))) for k, v in network.state_dict().items()}
    network.load_state_dict(state)
    return network


@pytest.mark.parametrize("kind", ["guided", "improved"])
def test_the_network_is_theirs(kind):
    with torch.device("meta"):
        released = Network({"guided": GUIDED, "improved": IMPROVED}[kind]).state_dict()
    shapes = [",".join(map(str, tensor.shape)) for tensor in released.values()]
    assert dict(zip(released, shapes, strict=True)) == dict(
        zip(GOLDENS[f"{kind}/keys"], GOLDENS[f"{kind}/shapes"], strict=True)
    )
    with torch.inference_mode():
        output = small(kind)(official.image(), torch.tensor(official.TIMES), torch.tensor(official.LABELS))
    torch.testing.assert_close(output, golden(f"{kind}/output"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["guided", "improved"])
def test_a_file_is_known_by_its_keys_and_a_level_by_its_gamma(kind, tmp_path):
    torch.save({k: v.half() for k, v in small(kind).state_dict().items()}, tmp_path / "weights.pt")
    saved = read(tmp_path / "weights.pt", openai.NAME)
    network = openai.network_of(saved, STRUCTURES["guided"], STRUCTURES["improved"])
    assert network.structure == STRUCTURES[kind]
    gammas = NoiseSchedule.cosine(network.structure.steps).respaced(50).gammas
    seen = []
    network.forward = lambda y, t, labels: seen.append(t)
    openai.ByLevel(network)(torch.zeros(50, 3, 1, 1), gammas.float(), None)
    last = network.structure.steps - 1
    assert seen[0].tolist() == [round(i * last / 49) for i in range(50)]


def test_other_weights_are_one_line(tmp_path, monkeypatch):
    torch.save(small("guided").state_dict(), tmp_path / "64x64_diffusion.pt")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(UserError, match=r"^\S*64x64_diffusion.pt: not weights of openai's generator \(\d+ keys differ"):
        generator.load("64x64_diffusion.pt")  # found by its name, and of another size
    assert f"looks like: {openai.NAME}" in identify(tmp_path / "64x64_diffusion.pt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="no label_emb.weight"):
        generator.load(str(tmp_path / "other.pt"))
    with pytest.raises(UserError, match="missing.pt: weights cannot be read"):
        generator.load(str(tmp_path / "missing.pt"))


def test_a_release_that_cannot_be_had_says_where_it_is(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("offline")

    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match="diffusion/jul-2021/64x64_diffusion.pt on another machine"):
        generator.load("64x64_diffusion.pt")


def test_the_hybrid_loss_is_theirs():
    t, levels = torch.tensor(official.LOSS_TIMES), Levels.of(NoiseSchedule.cosine(4000), CPU)
    loss = generator_loss(lambda *_: official.loss_output(), official.eight_bit(), t, official.loss_noise(), levels)
    mse, vb = golden("loss/mse"), golden("loss/vb")  # theirs: vb scaled by T / 1000
    torch.testing.assert_close(loss, mse + vb, atol=1e-6, rtol=1e-5)
    assert float((vb / loss).max()) > 0.01  # so that the term is seen
    assert VLB_WEIGHT == 0.001


def test_the_simple_loss_is_theirs():
    levels, seen = Levels.of(NoiseSchedule.linear(1e-4, 0.02, 1000), CPU), []

    def model(y, gamma, labels):
        seen.append(y)
        return official.loss_output()[:, :3]

    t = torch.tensor(official.LOSS_TIMES) % 1000
    loss = generator_loss(model, official.eight_bit(), t, official.loss_noise(), levels)
    torch.testing.assert_close(seen[0], golden("loss/noisy"), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(loss, golden("linear/loss"), atol=1e-6, rtol=1e-6)


def test_the_bound_trains_variances_alone():
    output = official.loss_output().requires_grad_()
    t, levels = torch.tensor(official.LOSS_TIMES), Levels.of(NoiseSchedule.cosine(4000), CPU)
    noise = official.loss_noise()
    generator_loss(lambda *_: output, official.eight_bit(), t, noise, levels).sum().backward()
    eps = output.detach()[:, :3]
    torch.testing.assert_close(output.grad[:, :3], 2 * (eps - noise) / eps[0].numel())
    assert bool((output.grad[:, 3:] != 0).any(dim=(1, 2, 3)).all())


@pytest.mark.parametrize(
    ("name", "schedule", "options"),
    [
        ("chain/learned", NoiseSchedule.cosine(4000), {"variance": "learned"}),
        ("chain/fixed", NoiseSchedule.linear(1e-4, 0.02, 1000), {"variance": "posterior"}),
        ("ddim", NoiseSchedule.linear(1e-4, 0.02, 1000), {"variance": "learned", "solver": "ddim", "eta": 0.5}),
    ],
)
def test_respaced_chains_are_theirs(name, schedule, options):
    def model(_, y, gamma):
        return official.denoiser(y, gamma)[:, : 6 if options["variance"] == "learned" else 3]

    steps = iter(range(official.RESPACED))
    levels = schedule.respaced(official.RESPACED)
    like = torch.empty(official.SHAPE)
    *_, last = refine(model, like, levels, lambda: official.noise(next(steps)), clip=True, **options)
    torch.testing.assert_close(last, golden(name), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("total", "steps"), official.KEPT)
def test_the_kept_levels_are_theirs(total, steps):
    schedule = NoiseSchedule.linear(1e-4, 0.02, total)
    expected = schedule.gammas[golden(f"kept/{total}_{steps}")]
    torch.testing.assert_close(schedule.respaced(steps).gammas, expected, atol=0, rtol=1e-12)
