"""Training, sampling and cascades in several processes, which `torchrun` starts where it matters; CPU and gloo."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sr3eval import config as configs
from sr3eval.config import from_dict
from sr3eval.diffusion import checkpoint
from sr3eval.diffusion.parallel import check_job
from sr3eval.diffusion.train_config import OptimiserConfig
from sr3eval.distributed import Job
from sr3eval.errors import UserError
from sr3eval.images import save
from tests.diffusion.small_training import run, same
from tests.processes import ACCELERATE, TORCHRUN

ROOT = Path(__file__).parents[2]
TWO = (*TORCHRUN, "--nproc-per-node=2", "-m")
ENDED = "Error: Another process of this job ended, so this one stops. The same command resumes."
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def settings(settings):
    """In float32 and without dropout, so that the number of processes changes rounding alone."""
    settings["optimiser"] |= {"batch_size": 8, "accumulate": 2, "precision": "float32", "steps": 6}
    settings["unet"]["dropout"] = 0.0
    settings["data"]["blur"] = [0.4, 0.6]
    settings["log"] |= {"every": 1, "validate_every": 3, "save_every": 3}
    return settings


@pytest.fixture
def train(settings, tmp_path, jobs):
    """Start a training of `settings` into a folder, in so many processes or by a launcher."""

    def start(out, ranks=None, launcher=(), **optimiser):
        changed = settings | {"optimiser": settings["optimiser"] | optimiser}
        (tmp_path / f"{out.name}.toml").write_text(configs.tomli_w.dumps(changed))
        command = ("sr3eval.cli", "train", tmp_path / f"{out.name}.toml", "--out", out)
        return jobs.start(*launcher, *command, ranks=ranks)

    return start


def lines_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_same_curves(one, several):
    """Losses, gradient norms and scores to 1e-5, whatever the number of processes."""
    lines, others = lines_of(one), lines_of(several)
    assert len(lines) == len(others) > 1
    for line, other in zip(lines, others, strict=True):
        assert other == pytest.approx(line, rel=1e-5)


def assert_same_weights(one, several):
    weights, others = (checkpoint.load(str(out / "model.safetensors")).weights for out in (one, several))
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, atol=1e-5, rtol=1e-4)


def assert_said_once(line, output):
    """At the end of the output, which may have lines of progress, too."""
    assert output.splitlines()[-1] == line and output.count(line) == 1, output


def workers_of(process):
    """The processes that a launcher started, in order of rank."""
    found = subprocess.run(["pgrep", "-P", str(process.processes[0].pid)], capture_output=True, text=True, check=True)
    return [int(number) for number in found.stdout.split()]


# Training


def test_two_processes_train_as_one_does_and_one_resumes(settings, train, tmp_path):
    settings["optimiser"] |= {"checkpoint_activations": [0]}
    settings["data"] |= {"in_memory": True, "transpose": True, "gains": [0.9, 1.1], "validation_images": 5}
    code, output = train(tmp_path / "two", ranks=2).finish()
    assert code == 0 and output.startswith("SR3, photos_16_64: "), output
    assert_said_once(f"{tmp_path / 'two'}: trained to step 6", output)
    run(settings, tmp_path / "one")
    assert_same_curves(tmp_path / "one", tmp_path / "two")
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    settings["optimiser"]["steps"] = 9
    for name, accumulate in (("one", 2), ("two", 4)):
        settings["optimiser"]["accumulate"] = accumulate
        run(settings, tmp_path / name)
    assert_same_curves(tmp_path / "one", tmp_path / "two")


def test_four_processes_train_as_one_does(settings, train, tmp_path):
    settings["data"]["workers"] = 1
    code, output = train(tmp_path / "four", ranks=4).finish()
    assert code == 0, output
    run(settings, tmp_path / "one")
    assert_same_curves(tmp_path / "one", tmp_path / "four")
    assert_same_weights(tmp_path / "one", tmp_path / "four")


def test_shards_resume_what_one_process_began_and_one_resumes_theirs(settings, train, tmp_path):
    """FSDP, as accelerate asks for it: weights, moments and EMA are sharded and gathered again, and classes shared."""
    for label in ("a", "b"):
        shutil.copytree(settings["data"]["images"], tmp_path / "classes" / label)
    settings["model"] = "ddpm"
    settings["data"] = {"images": str(tmp_path / "classes"), "validation": str(tmp_path / "classes"), "crop": 16}
    settings["unet"] |= {"classes": 2}
    settings["schedule"] = {"start": 1e-4, "end": 0.02, "steps": 100}
    settings["optimiser"] |= {"checkpoint_activations": "norms"}
    del settings["task"]
    run(settings, tmp_path / "one")
    run(settings, tmp_path / "shards", stop_after=2)
    code, output = train(tmp_path / "shards", launcher=(*ACCELERATE, "--use_fsdp", "--num_processes=2", "-m")).finish()
    assert code == 0 and 'sharding = "fsdp"' in (tmp_path / "shards" / "config.toml").read_text(), output
    settings["optimiser"]["steps"] = 9
    for name in ("one", "shards"):
        run(settings, tmp_path / name)
    assert_same_curves(tmp_path / "one", tmp_path / "shards")
    assert_same_weights(tmp_path / "one", tmp_path / "shards")


@pytest.fixture
def long(settings):
    """Saved every 5 steps, with dropout: which differs with the number of processes, and is drawn anew by none."""
    settings["unet"]["dropout"] = 0.2
    settings["optimiser"] |= {"steps": 40}
    settings["log"] |= {"validate_every": 40, "save_every": 5}
    return settings


def test_a_killed_process_ends_the_job_which_resumes_bit_for_bit_by_itself_too(long, train, tmp_path):
    whole, out = train(tmp_path / "whole", ranks=2), tmp_path / "killed"

    job = train(out, launcher=TWO)
    job.wait_for(out / "state.safetensors")
    began = time.monotonic()
    os.kill(workers_of(job)[1], signal.SIGKILL)
    code, output = job.finish()
    assert code != 0 and time.monotonic() - began < 60
    assert output.count(ENDED) == 1 and f'File "{ROOT / "sr3eval"}' not in output, output

    saved = (out / "state.safetensors").stat().st_mtime_ns
    job = train(out, launcher=(*TORCHRUN, "--max-restarts=1", "--nproc-per-node=2", "-m"))
    job.wait_for(out / "state.safetensors", after=saved)
    os.kill(workers_of(job)[0], signal.SIGKILL)
    code, output = job.finish()
    assert code == 0, output
    assert output.splitlines()[-1] == f"{out}: trained to step 40"
    assert whole.finish()[0] == 0
    states = [safetensors.torch.load_file(tmp_path / name / "state.safetensors") for name in ("whole", "killed")]
    assert same(*states)
    assert (tmp_path / "whole" / "metrics.jsonl").read_bytes() == (out / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(("number", "said"), [(signal.SIGTERM, "stopped at step"), (signal.SIGINT, "Stopped. The")])
def test_a_signal_to_the_launcher_saves_and_ends_all_processes(settings, train, tmp_path, number, said):
    settings["optimiser"] |= {"steps": 2000}
    settings["log"] |= {"validate_every": 2000, "save_every": 2000}
    out = tmp_path / "run"
    job = train(out, launcher=TWO)
    job.wait_for(out / "metrics.jsonl")
    job.signal(number)
    code, output = job.finish()
    assert code != 0 and output.count(said) == 1  # the launcher's code
    content, _ = checkpoint.read(out / "state.safetensors")
    assert float(safetensors.torch.load(content)["adam.0.step"]) == lines_of(out)[-1]["step"] < 2000


def test_an_error_of_all_processes_is_one_line(settings, train, tmp_path):
    job = train(tmp_path / "run", launcher=TWO, learning_rate=1e20, warmup_steps=0, gradient_clip=0.0)
    code, output = job.finish()
    errors = [line for line in output.splitlines() if line.startswith("Error:")]
    assert code == 1 and len(errors) == 1
    assert "learning_rate" in errors[0] and errors[0].startswith("Error: step ")
    assert "sr3eval/console.py" not in output


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (3, {}, "optimiser.batch_size: 3 processes cannot share 8 evenly; make it a multiple of 3"),
        (
            4,
            {"accumulate": 4},
            "4 processes cannot share 8 evenly, each in 4 parts; lower optimiser.accumulate, or make it a mul",
        ),
        (2, {"cuda_graph": True}, "optimiser.cuda_graph: only for one process"),
    ],
)
def test_what_processes_cannot_share_is_refused(count, options, message):
    optimiser = OptimiserConfig(steps=1, batch_size=8, learning_rate=1e-3, warmup_steps=0, **options)
    with pytest.raises(UserError, match=message):
        check_job(optimiser, Job(0, count))
    check_job(optimiser, Job(0, 2 if count > 2 else 1))


def test_shards_do_not_go_with_float16():
    settings = {"steps": 1, "batch_size": 1, "learning_rate": 1e-3, "warmup_steps": 0}
    with pytest.raises(UserError, match='"float16": does not go with sharding = "fsdp"'):
        from_dict(OptimiserConfig, settings | {"precision": "float16", "sharding": "fsdp"})


# Sampling and cascades


def assert_same_files(one, several):
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(several) for path in several.rglob("*") if path.is_file())
    assert all((one / name).read_bytes() == (several / name).read_bytes() for name in names)
    return names


def test_two_processes_sample_the_same_bytes(trained, tmp_path, jobs):
    generator = torch.Generator().manual_seed(0)
    for name, size in [("a", (16, 16)), ("b", (16, 16)), ("c", (16, 16)), ("wide", (5, 9)), ("tiny", (1, 1))]:
        save(tmp_path / "in" / f"{name}.png", torch.rand(3, *size, generator=generator))
    options = ["--checkpoint", trained["sr3"], "--steps", 2, "--samples", 2, "--batch-size", 3, tmp_path / "in"]
    code, output = jobs.run("sr3eval.cli", "sample", *options, tmp_path / "two", ranks=2)
    assert code == 0 and output.count(", 2 steps, 10 images; ") == 1, output
    assert_said_once(f"{tmp_path / 'two'}: 10 images", output)
    assert jobs.run("sr3eval.cli", "sample", *options, tmp_path / "one")[0] == 0
    assert len(assert_same_files(tmp_path / "one", tmp_path / "two")) == 11


def test_two_processes_make_the_same_cascade(settings, photos, tmp_path, jobs):
    settings["unet"] |= {"attention": [], "middle_attention": False}
    settings["optimiser"] |= {"steps": 1}
    run(settings, tmp_path / "sr3")
    generator = {name: settings[name] for name in ("optimiser", "log", "unet")}
    generator |= {"model": "ddpm", "data": {"images": str(photos), "crop": 16, "held_out": 0.5}}
    generator["schedule"] = {"start": 1e-4, "end": 0.02, "steps": 100}
    run(generator, tmp_path / "generator")
    cascade = {"images": 7, "batch_size": 2, "generator": {"steps": 2}}
    cascade["generator"]["checkpoint"] = str(tmp_path / "generator" / "model.safetensors")
    cascade["stage"] = [{"checkpoint": str(tmp_path / "sr3" / "model.safetensors"), "steps": 2}]
    (tmp_path / "c.toml").write_text(configs.tomli_w.dumps(cascade))
    code, output = jobs.run("sr3eval.cli", "cascade", tmp_path / "c.toml", "--out", tmp_path / "two", ranks=2)
    assert code == 0, output
    assert_said_once(f"{tmp_path / 'two'}: 7 images", output)
    assert jobs.run("sr3eval.cli", "cascade", tmp_path / "c.toml", "--out", tmp_path / "one")[0] == 0
    assert len(assert_same_files(tmp_path / "one", tmp_path / "two")) == 8
