"""`sr3eval refine`: the chain of one image as strip and film, and its samples side by side."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from sr3eval.cli import main
from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion.refinement import GAP, LINE, RefinementConfig, film, refined, write
from sr3eval.diffusion.sample_folder import SampleConfig, sample_folder
from sr3eval.diffusion.solvers import NoisePerImage, SamplerConfig, SamplerOptions
from sr3eval.diffusion.sr3 import SR3
from sr3eval.folders import stable_hash
from sr3eval.images import bicubic_up, load, save, to_signed, to_uint8

CHECKPOINT = "sr3eval:assets/sr3_photos_16_64.safetensors"
SAMPLER = SamplerOptions(steps=4, solver="dpmpp_2m_sde", clip=True)
FACTOR = 3  # by which 64 pixels are enlarged

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    coarse = (
        torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        * torch.tensor([0.9, 0.7, 0.5])[:, None, None]
    )
    path = tmp_path_factory.mktemp("input") / "cat.png"
    save(path, bicubic_up(coarse, (16, 16))[0].clamp(0, 1))
    return path


@pytest.fixture(scope="module")
def method():
    return SR3(checkpoints.load(CHECKPOINT, "sr3"), SamplerConfig(**SAMPLER.given))


@pytest.fixture(scope="module")
def written(image, tmp_path_factory):
    out = tmp_path_factory.mktemp("refined") / "new"
    told = []
    config = RefinementConfig(CHECKPOINT, SAMPLER, seed=5, samples=3, columns=3)
    assert write(config, image, out, lambda *state: told.append(state)) == [
        out / name for name in ("chain.png", "chain.gif", "samples.png")
    ]
    assert told == [(done, 12) for done in range(1, 13)]
    return out


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def panel(page, row, column):
    """A picture of a sheet, in its own pixels."""
    side, top, left = 64 * FACTOR, row * (64 * FACTOR + LINE + GAP), column * (64 * FACTOR + GAP)
    enlarged = page[top : top + side, left : left + side]
    small = enlarged[::FACTOR, ::FACTOR]
    assert (enlarged == small.repeat(FACTOR, 0).repeat(FACTOR, 1)).all()
    return small


def rows(tensor):
    return to_uint8(tensor).permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def outputs(image, tmp_path_factory):
    """What `sample_folder` makes of a folder with that image, one by one."""
    out = tmp_path_factory.mktemp("sampled") / "out"
    config = SampleConfig(CHECKPOINT, sampler=SAMPLER, samples=3, seed=5, batch_size=1)
    sample_folder(config, image.parent, out, lambda *_: None)
    return [pixels(out / f"sample_{number}" / "cat.png") for number in (1, 2, 3)]


def test_it_shows_what_sampling_makes(written, outputs):
    strip, sheet = pixels(written / "chain.png"), pixels(written / "samples.png")
    assert (panel(strip, 0, 3) == outputs[0]).all()
    for column, output in enumerate(outputs, start=1):
        assert (panel(sheet, 0, column) == output).all()
    assert len({output.tobytes() for output in outputs}) == 3


def test_the_input_stands_first(written, image):
    expected = rows(bicubic_up(load(image)[None], (64, 64))[0])
    for name in ("chain.png", "samples.png"):
        assert (panel(pixels(written / name), 0, 0) == expected).all()


def test_the_last_picture_of_the_sheet_is_the_deviation(written, outputs):
    """Of the samples, as grey whose white is its greatest value."""
    deviation = np.stack(outputs).astype(float).std(axis=0, ddof=1).mean(axis=-1)
    grey = panel(pixels(written / "samples.png"), 0, 4)
    assert (grey == grey[..., :1]).all()
    np.testing.assert_allclose(grey[..., 0], 255 * deviation / deviation.max(), atol=0.51)


def test_states_and_estimates_are_the_solvers(method, image):
    """The last step of DPM-Solver++ returns its estimate of y_0; y_T is the noise itself."""
    lr = load(image)[None]
    told = []
    chain = refined(method, lr, 7, told.append)
    assert (len(chain.states), len(chain.estimates)) == (5, 4)
    assert told == [0.25, 0.5, 0.75, 1.0]
    assert (chain.estimates[-1].int() - chain.states[-1].int()).abs().max() <= 1
    assert torch.equal(chain.states[-1], to_uint8(method.upscale(lr, [7]).images[0]))
    x = to_signed(bicubic_up(lr, (64, 64)))
    noise = NoisePerImage([7], x)()
    assert torch.equal(chain.states[0], to_uint8((noise[0] + 1) / 2))
    gamma = method.sampler.schedule(method.final_gamma).gammas[-1:].float()
    with torch.inference_mode():
        eps = method.model(x, noise, gamma)
    y0 = (noise - (1 - gamma).sqrt() * eps) / gamma.sqrt()
    assert (chain.estimates[0].int() - to_uint8((y0[0] + 1) / 2).int()).abs().max() <= 1


def test_the_strip_has_both_ends_and_estimates_below(written, method, image):
    """Of five states three: y_4, y_2 and y_0."""
    strip = pixels(written / "chain.png")
    assert strip.shape[1] == 4 * 64 * FACTOR + 3 * GAP
    chain = refined(method, load(image)[None], stable_hash(5, "cat", 0), lambda _: None)
    for column, state in enumerate((0, 2, 4), start=1):
        assert (panel(strip, 0, column) == chain.states[state].permute(1, 2, 0).numpy()).all()
    for column, state in enumerate((0, 2), start=1):
        assert (panel(strip, 1, column) == chain.estimates[state].permute(1, 2, 0).numpy()).all()
    assert (panel(strip, 1, 0) == 255).all() and (panel(strip, 1, 3) == 255).all()


def test_the_film_shows_every_state_and_rests_at_the_last(written, outputs):
    with Image.open(written / "chain.gif") as gif:
        assert (gif.format, gif.n_frames, gif.size, gif.info["loop"]) == ("GIF", 5, (64 * FACTOR, 64 * FACTOR), 0)
        durations = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            durations.append(gif.info["duration"])
        last = np.asarray(gif.convert("RGB")).astype(int)
    assert durations == [200, 200, 200, 200, 2000]
    assert np.abs(last[::FACTOR, ::FACTOR] - outputs[0]).mean() < 3  # of 256 colours


def test_a_long_film_is_cut_to_a_hundred_frames():
    """State k is grey of level k: of 201, every second."""
    states = [torch.full((3, 32, 32), level, dtype=torch.uint8) for level in range(201)]
    levels, durations = [], []
    with Image.open(io.BytesIO(film(states))) as gif:
        for frame in range(gif.n_frames):
            gif.seek(frame)
            levels.append(gif.convert("RGB").getpixel((0, 0))[0])
            durations.append(gif.info["duration"])
    assert levels == [round(k * 200 / 99) for k in range(100)]
    assert durations == [40] * 99 + [2000]


def test_the_same_command_writes_the_same_bytes(written, image, tmp_path):
    options = ["--checkpoint", CHECKPOINT, "--steps", "4", "--solver", "dpmpp_2m_sde", "--clip", "--seed", "5"]
    command = ["refine", str(image), str(tmp_path / "out"), *options, "--columns", "3", "--samples"]
    for samples, names in (("3", {"chain.png", "chain.gif", "samples.png"}), ("1", {"chain.png", "chain.gif"})):
        result = CliRunner().invoke(main, [*command, samples])
        assert result.exit_code == 0, result.output
        assert {Path(line).name for line in result.output.split() if line.endswith(("png", "gif"))} == names
    for path in written.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/no.png", "{out}"], "no.png: no such file"),
        (["{folder}/broken.png", "{out}"], "broken.png: not a readable image"),
        (["{image}", "{out}", "--samples", "0"], "samples must be at least 1, and columns at least 2"),
        (["{image}", "{out}", "--columns", "1"], "samples must be at least 1, and columns at least 2"),
        (["{image}", "{out}", "--steps", "0"], "sampler: 0 steps"),
        (["{image}", "{image}"], "cat.png: is a file; give a folder"),
        (
            ["{image}", "{out}", "--checkpoint", "sr3eval:assets/regression_photos_16_64.safetensors"],
            "a regression checkpoint, not sr3",
        ),
        (["{image}", "{out}", "--checkpoint", "{folder}/broken.png"], "not a safetensors file"),
    ],
)
def test_bad_input_is_one_line(arguments, message, image, tmp_path):
    (tmp_path / "broken.png").write_text("no picture")
    places = {"folder": tmp_path, "image": image, "out": tmp_path / "out"}
    arguments = [argument.format(**places) for argument in arguments]
    checkpoint = [] if "--checkpoint" in arguments else ["--checkpoint", CHECKPOINT]
    result = CliRunner().invoke(main, ["refine", *arguments, *checkpoint])
    lines = result.output.strip().splitlines()
    assert (result.exit_code, len(lines)) == (1, 1), result.output
    assert message in lines[0]
    assert not (tmp_path / "out").exists()
