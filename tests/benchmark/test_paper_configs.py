"""Configs that run everybody's models, whole, on stand-ins for their files: reduced networks with random weights."""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import sr3eval.diffusion.checkpoint as checkpoints
from baselines._rrdb import RRDBNet
from sr3eval import config as configs
from sr3eval import tasks
from sr3eval.benchmark import finish, plan
from sr3eval.benchmark.config import RunConfig
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.images import load, save

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
GOLDENS = TESTS / "baselines" / "goldens"
FEWER = {"sr3": {"steps": 2}, "pulse": {"steps": 2}}  # every other option, path and size is the config's own
IDS = ["a", "b"]


def functions(*path: str) -> SimpleNamespace:
    """Those of a file below tests/."""
    return SimpleNamespace(**runpy.run_path(str(TESTS.joinpath(*path))))


def write_weights(path: str, state: dict[str, torch.Tensor]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def random_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: 0.1 * torch.randn_like(t) for name, t in network.state_dict().items()}


def write_trained(task: str, model: str) -> None:
    """runs/train/MODEL_TASK/model.safetensors, as its recipe would leave it."""
    side = tasks.get(task).hr_size
    plain = {
        "task": task,
        "model": model,
        "data": {"images": "unused", "crop": side},
        "unet": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "image_size": side},
        "optimiser": {"steps": 1, "batch_size": 1, "learning_rate": 1e-4, "warmup_steps": 0},
    }
    config = configs.from_dict(TrainConfig, plain)
    path = Path("runs", "train", f"{model}_{task}", "model.safetensors")
    path.parent.mkdir(parents=True)
    checkpoints.save(path, configs.to_dict(config), 1, random_state(precondition(model, config.network).unet))


def faces() -> None:
    """The files that configs/paper/table_2.toml names."""
    pulse, srflow = functions("baselines", "goldens", "pulse.py"), functions("baselines", "goldens", "srflow.py")
    write_weights("weights/synthesis.pt", pulse.synthesis_state([2] * 9))  # 4x4 to 1024x1024
    write_weights("weights/gaussian_fit.pt", pulse.fit_state())
    write_weights("weights/SRFlow_CelebA_8X.pth", srflow.state("8X"))
    write_weights("weights/e099_psnr22.53.pth", functions("contracts", "test_methods.py").fsrnet_state(0))
    for image_id in IDS:
        save(Path("data", "fsrgan_outputs", f"{image_id}.png"), torch.rand(3, 128, 128))
        save(Path("data", "celeba_hq", f"{image_id}.png"), torch.rand(3, 130, 128))


def natural() -> None:
    """The files that configs/paper/figure_7.toml names."""
    write_weights("weights/RRDB_ESRGAN_x4.pth", random_state(RRDBNet(8, 1, 4)))
    write_weights("weights/SRFlow_DF2K_4X.pth", functions("baselines", "goldens", "srflow.py").state("4X"))
    Path("weights", "weights").write_bytes((GOLDENS / "enhancenet_weights").read_bytes())
    for image_id in IDS:
        save(Path("data", "imagenet", "val", "n01440764", f"{image_id}.png"), torch.rand(3, 256, 260))


@pytest.mark.parametrize(("name", "write_files"), [("table_2", faces), ("figure_7", natural)])
def test_everybodys_models_in_one_run(name, write_files, tmp_path, monkeypatch, quick_networks):
    monkeypatch.chdir(tmp_path)
    settings = RunConfig.parse(configs.read_toml(ROOT / "configs" / "paper" / f"{name}.toml"))
    write_files()
    for model in ("regression", "sr3"):
        write_trained(settings.task.name, model)
    quick = [replace(m, options=m.options | FEWER.get(m.kind, {})) for m in settings.method]
    settings = replace(settings, method=tuple(quick), batch_size=2)
    planned = plan(settings, tmp_path / "run", tmp_path / "cache")
    results = finish(planned)
    assert set(results["method"]) == {method.name for method in settings.method}
    assert len(results) == len(settings.method) * len(settings.metrics)
    side = settings.task.hr_size
    for method in settings.method:
        for image in planned.images:
            assert load(planned.folder.image(method.slug, image.image_id)).shape == (3, side, side)
    per_image = pd.read_csv(tmp_path / "run" / "per_image.csv")
    psnr = per_image[per_image["metric"] == "psnr"].pivot(index="image_id", columns="method", values="value")
    assert psnr.nunique(axis=1).eq(len(settings.method)).all()  # no two methods made the same
    if name == "table_2":
        notes = results[results["method"] == "PULSE"]["method_notes"].iloc[0]
        assert "converged 0 of 2" in notes
