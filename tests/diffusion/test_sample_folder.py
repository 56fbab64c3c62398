"""Checkpoints as methods, and `sr3eval sample` over folders."""

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sr3eval import cli, device
from sr3eval.config import check_call
from sr3eval.diffusion.sample_folder import SampleConfig, sample_folder
from sr3eval.diffusion.solvers import SamplerOptions
from sr3eval.errors import UserError
from sr3eval.folders import stable_hash
from sr3eval.images import bicubic_up, load, round_to_8bit, save
from sr3eval.methods import regression, sr3
from sr3eval.tasks import TASKS


@pytest.fixture
def inputs(tmp_path):
    """Low-resolution images of three sizes, one of them not a multiple of what the network needs."""
    generator = torch.Generator().manual_seed(0)
    for name, size in [("a", (16, 16)), ("b", (16, 16)), ("c/d", (16, 16)), ("wide", (5, 9)), ("tiny", (1, 1))]:
        save(tmp_path / "in" / f"{name}.png", torch.rand(3, *size, generator=generator))
    return tmp_path / "in"


def silent(_done, _total):
    """Progress that nobody looks at."""


def test_any_sizes_batched_with_several_samples(trained, inputs, tmp_path):
    config = SampleConfig(trained["sr3"], sampler=SamplerOptions(2), samples=2, batch_size=4)
    told = []
    assert sample_folder(config, inputs, tmp_path / "out", lambda *counts: told.append(counts)) == 10
    assert told[:5] == [(2, 10), (4, 10), (4, 10), (5, 10), (6, 10)]  # two steps a batch of four or of two
    assert told[-1] == (10, 10)
    shapes = {name: load(tmp_path / "out" / "sample_2" / f"{name}.png").shape for name in ("a", "c/d", "wide", "tiny")}
    assert shapes == {"a": (3, 64, 64), "c/d": (3, 64, 64), "wide": (3, 20, 36), "tiny": (3, 4, 4)}
    samples = [load(tmp_path / "out" / f"sample_{k}" / "a.png") for k in (1, 2)]
    assert not torch.equal(*samples)


def test_an_image_does_not_depend_on_its_company(trained, inputs, tmp_path):
    """Same seed, same image: whatever else is in the batch, and where."""
    method = sr3.build(checkpoint=trained["sr3"], sampler=SamplerOptions(3))
    lr = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    together = method.upscale(lr, [1, 2, 3, 4]).images
    order = [2, 0, 3, 1]
    shuffled = method.upscale(lr[order], [order_seed + 1 for order_seed in order]).images
    assert torch.equal(together[order], shuffled)
    alone = method.upscale(lr[1:2], [2]).images
    torch.testing.assert_close(alone[0], together[1], atol=1e-4, rtol=0)
    assert not torch.allclose(method.upscale(lr[1:2], [9]).images[0], together[1], atol=1e-3)


def test_half_is_the_methods(trained, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "has_bfloat16", lambda _: True)
    config = SampleConfig(trained["sr3"], sampler=SamplerOptions(2), half=True, batch_size=1)
    sample_folder(config, inputs, tmp_path / "out", silent)
    method = sr3.build(checkpoint=trained["sr3"], sampler=SamplerOptions(2), half=True)
    expected = method.upscale(load(inputs / "wide.png")[None], [stable_hash(0, "wide", 0)]).images[0]
    assert torch.equal(load(tmp_path / "out" / "wide.png"), round_to_8bit(expected))
    with pytest.raises(UserError, match="another config"):
        sample_folder(replace(config, half=False), inputs, tmp_path / "out", silent)


def test_interrupted_sampling_goes_on_with_the_same_bytes(trained, inputs, tmp_path):
    config = SampleConfig(trained["sr3"], sampler=SamplerOptions(2), batch_size=2)
    sample_folder(config, inputs, tmp_path / "whole", silent)

    def stop(done, _total):
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_folder(config, inputs, tmp_path / "parts", stop)
    (tmp_path / "parts" / "a.png").unlink()
    sample_folder(config, inputs, tmp_path / "parts", silent)
    for path in (tmp_path / "whole").rglob("*.png"):
        twin = tmp_path / "parts" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == twin.read_bytes()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_killed_command_goes_on_with_the_same_bytes(trained, inputs, tmp_path, signal_number):
    def line(out):
        options = ["--steps", "40", "--samples", "3", "--batch-size", "1"]
        return ["sample", "--checkpoint", trained["sr3"], *options, inputs, out]

    killed = [sys.executable, "-m", "sr3eval.cli", *line(tmp_path / "killed")]
    process = subprocess.Popen(killed, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "killed").rglob("*.png")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if signal_number == signal.SIGINT else -signal_number)
    assert "Traceback" not in errors
    made = len(list((tmp_path / "killed").rglob("*.png")))
    assert 0 < made < 15
    for out in ("killed", "whole"):
        assert command(*line(tmp_path / out))[0] == 0
    names = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.png")]
    assert len(names) == 15
    assert all((tmp_path / "whole" / n).read_bytes() == (tmp_path / "killed" / n).read_bytes() for n in names)


def test_regression_is_one_pass_and_starts_as_bicubic(trained, inputs):
    method = regression.build(checkpoint=trained["regression"])
    lr = torch.rand(1, 3, 16, 16)
    assert torch.equal(method.upscale(lr, [0]).images, method.upscale(lr, [1]).images)
    torch.nn.init.zeros_(method.model.unet.conv_out.weight)
    torch.nn.init.zeros_(method.model.unet.conv_out.bias)
    torch.testing.assert_close(method.upscale(lr, [0]).images, bicubic_up(lr, (64, 64)).clamp(0, 1), atol=1e-6, rtol=0)


def built(options):
    """As from a config, where the sampler's settings stand among the method's."""
    return sr3.build(**check_call(sr3.build, options, "sr3"))


def test_fingerprint_names_weights_and_settings(trained):
    fingerprints = {
        built(options | {"checkpoint": trained["sr3"]}).fingerprint
        for options in (
            {"steps": 2},
            {"steps": 3},
            {"steps": 2, "clip": True},
            {"steps": 2, "variance": "posterior"},
            {"steps": 2, "spacing": "linear"},
            {"steps": 2, "jump": 0.0},
            {"steps": 2, "solver": "ddim"},
            {"steps": 2, "solver": "ddim", "eta": 0.5},
        )
    }
    assert len(fingerprints) == 8
    assert built({"checkpoint": trained["sr3"], "steps": 2}).fingerprint in fingerprints


def command(*arguments):
    """Run `sr3eval` and return (exit code, lines on stderr)."""
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    return result.exit_code, [line for line in result.stderr.splitlines() if line.strip()]


def test_bad_input_is_one_line(trained, inputs, tmp_path):
    good = trained["sr3"]
    (tmp_path / "half.safetensors").write_bytes(Path(good).read_bytes()[:5000])
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    shutil.copytree(inputs, broken)
    whole = (broken / "a.png").read_bytes()
    (broken / "a.png").write_bytes(whole[: len(whole) // 2])
    cases = [
        (tmp_path / "absent.safetensors", inputs, "absent.safetensors: cannot be read"),
        (tmp_path / "half.safetensors", inputs, "not a safetensors file, or truncated"),
        (inputs / "a.png", inputs, "a.png: not a safetensors file"),
        (good, tmp_path / "absent", "absent: no such folder"),
        (good, tmp_path / "empty", "empty: no images"),
        (good, broken, "a.png: not a readable image (image file is truncated)"),
    ]
    for number, (checkpoint, images, message) in enumerate(cases):
        out = tmp_path / f"out{number}"
        code, lines = command("sample", "--checkpoint", checkpoint, "--steps", 2, images, out)
        assert (code, len(lines)) == (1, 1), lines
        assert message in lines[0]
        assert not list(out.rglob("*.png"))
    code, lines = command("sample", "--checkpoint", good, inputs, inputs / "out")
    assert code == 1
    assert "inside the input folder" in lines[0]


def test_regression_takes_no_options_of_samplers(trained, inputs, tmp_path):
    config = SampleConfig(trained["regression"], sampler=SamplerOptions(solver="ddim", first_beta=1e-3))
    with pytest.raises(UserError, match=r"--solver: only for SR3; .* is a Regression checkpoint"):
        sample_folder(config, inputs, tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_inputs_is_refused(trained, inputs, tmp_path):
    config = SampleConfig(trained["sr3"], sampler=SamplerOptions(1))
    sample_folder(config, inputs, tmp_path / "out", silent)
    before = (tmp_path / "out" / "a.png").read_bytes()
    save(inputs / "a.png", torch.rand(3, 16, 16))
    with pytest.raises(UserError, match="holds a run of another config or other images"):
        sample_folder(config, inputs, tmp_path / "out", silent)
    assert (tmp_path / "out" / "a.png").read_bytes() == before


def test_checkpoints_of_another_kind_are_refused(trained):
    with pytest.raises(UserError, match="a regression checkpoint, not sr3"):
        built({"checkpoint": trained["regression"]})
    with pytest.raises(UserError, match="trained for photos_16_64, not faces_16_128"):
        built({"checkpoint": trained["sr3"], "task": TASKS["faces_16_128"]})
    with pytest.raises(UserError, match="0 steps; at least 1"):
        built({"checkpoint": trained["sr3"], "steps": 0})
