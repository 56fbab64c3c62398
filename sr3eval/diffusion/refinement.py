"""The refinement of one image as pictures: its steps in a strip and as a film, and several samples side by side."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion import schedules
from sr3eval.diffusion.padding import pad
from sr3eval.diffusion.solvers import NoisePerImage, SamplerOptions
from sr3eval.diffusion.sr3 import SR3
from sr3eval.errors import UserError
from sr3eval.files import atomic_write
from sr3eval.folders import stable_hash
from sr3eval.images import bicubic_up, from_signed, load, to_signed, to_uint8
from sr3eval.method import Progress

SIDE = 192  # pixels: about the side of an enlarged picture
GAP, LINE, FONT_SIZE = 8, 20, 14  # pixels
PER_ROW = 10  # pictures of a sheet of samples
FRAMES = 100  # of a film, at most
LASTS, SHORTEST, LONGEST, HOLD = 4000, 40, 200, 2000  # ms: a film, one of its frames, and its last one
Picture = Image.Image


@dataclass(frozen=True)
class RefinementConfig:
    """checkpoint: of SR3; half: convolve in bfloat16; samples: of the sheet, none for one; columns: of the strip."""

    checkpoint: str
    sampler: SamplerOptions = field(default_factory=SamplerOptions)
    half: bool = False
    seed: int = 0
    samples: int = 1
    columns: int = 8

    def __post_init__(self) -> None:
        if self.samples < 1 or self.columns < 2:
            raise UserError("samples must be at least 1, and columns at least 2")


@dataclass(frozen=True)
class Chain:
    """The refinement of one image, in 8-bit pictures [3, H, W].

    Attributes:
        states: y_T, ..., y_0.
        estimates: of y_0, as the network sees it in y_T, ..., y_1.
    """

    states: Sequence[Tensor]
    estimates: Sequence[Tensor]


def write(config: RefinementConfig, image: Path, out: Path, progress: Callable[[int, int], None]) -> list[Path]:
    """Refine an image and write what shows it into the folder `out`; the paths that were written.

    chain.png: the input, y_T ... y_0 at some steps, and below each of them its estimate of y_0.
    chain.gif: all steps, as a film that loops.
    samples.png, of several samples: the input, the samples, and their standard deviation.

    The samples are those that `sample_folder` makes of a folder with this image and the same settings. progress: is
    told (evaluations done, total) after every step. Raises UserError for a checkpoint that is not SR3's, an image that
    cannot be read, and an `out` that is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder")
    lr = load(image)[None]
    weights = checkpoints.load(config.checkpoint, "sr3")
    method = SR3(weights, schedules.choose(config.checkpoint, weights.sha256, config.sampler), config.half)
    steps = method.sampler.steps

    def told(number: int) -> Progress:
        return lambda share: progress(round((number + share) * steps), config.samples * steps)

    first, *others = (stable_hash(config.seed, image.stem, number) for number in range(config.samples))
    chain = refined(method, lr, first, told(0))
    made = (method.upscale(lr, [seed], told(number)).images[0] for number, seed in enumerate(others, start=1))
    outputs = [chain.states[-1], *map(to_uint8, made)]
    enlarged = to_uint8(bicubic_up(lr, (outputs[0].shape[-2], outputs[0].shape[-1])))[0]
    files = {"chain.png": png(strip(enlarged, chain, config.columns)), "chain.gif": film(chain.states)}
    if config.samples > 1:
        files["samples.png"] = png(side_by_side(enlarged, outputs))
    for name, content in files.items():
        atomic_write(out / name, content)
    return [out / name for name in files]


@torch.inference_mode()
def refined(method: SR3, lr: Tensor, seed: int, progress: Progress) -> Chain:
    """Refine lr [1, 3, h, w] in [0, 1] and keep every step; the last is what `method.upscale` makes of the seed."""
    padded, size = pad(lr.to(method.device), method.scale, method.model.unet.config.factor)
    x = to_signed(bicubic_up(padded, size)).contiguous(memory_format=torch.channels_last)
    height, width = (method.scale * side for side in lr.shape[-2:])
    states: list[Tensor] = []
    estimates: list[Tensor] = []

    def picture(y: Tensor) -> Tensor:
        return to_uint8(from_signed(y[0, :, :height, :width])).cpu()

    def watched(x: Tensor, y: Tensor, gamma: Tensor) -> Tensor:
        eps = method.model(x, y, gamma)
        g = gamma[:, None, None, None]
        estimates.append(picture((y - (1 - g).sqrt() * eps) / g.sqrt()))
        if not states:
            states.append(picture(y))
        return eps

    for y in method.sampler.refine(watched, x, method.final_gamma, NoisePerImage([seed], x)):
        states.append(picture(y))
        progress(len(estimates) / method.sampler.steps)
    return Chain(states, estimates)


def strip(enlarged: Tensor, chain: Chain, columns: int) -> Picture:
    """The input, states from y_T to y_0 at equal distances, and below each the estimate of y_0 that was made of it."""
    steps = len(chain.estimates)
    chosen = _spread(len(chain.states), columns)
    above = [(chain.states[index], f"y_{steps - index}") for index in chosen]
    below = [(chain.estimates[index], f"y_0 from y_{steps - index}") for index in chosen if index < steps]
    return sheet([[(enlarged, "input"), *above], [None, *below]])


def side_by_side(enlarged: Tensor, samples: Sequence[Tensor]) -> Picture:
    """The input, the samples of it, and their standard deviation in each pixel, the mean of the three channels'."""
    deviation = torch.stack(list(samples)).double().std(dim=0, correction=1).mean(dim=0)
    most = float(deviation.max())
    grey = (deviation / max(most, 1e-9) * 255).round().to(torch.uint8).expand(3, -1, -1)
    panels: list[Panel | None] = [(enlarged, "input")]
    panels += [(sample, f"sample {number}") for number, sample in enumerate(samples, start=1)]
    panels.append((grey, f"std, white: {most:.0f}/255"))
    return sheet([panels[start : start + PER_ROW] for start in range(0, len(panels), PER_ROW)])


def film(states: Sequence[Tensor]) -> bytes:
    """A GIF of the states, at most 100 of them at equal distances, that rests at the last one and begins anew."""
    frames = [_enlarged(states[index]).quantize(256) for index in _spread(len(states), FRAMES)]
    each = min(max(LASTS // len(frames), SHORTEST), LONGEST)
    durations = [*[each] * (len(frames) - 1), HOLD]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)
    return buffer.getvalue()


Panel = tuple[Tensor, str]  # a picture with its caption


def sheet(rows: Sequence[Sequence[Panel | None]]) -> Picture:
    """Rows of pictures of one size, enlarged pixel by pixel, each with its caption; None leaves a place empty."""
    first = next(panel for panel in rows[0] if panel is not None)
    width, height = _enlarged(first[0]).size
    font = ImageFont.load_default(FONT_SIZE)
    page = Image.new(
        "RGB", (max(map(len, rows)) * (width + GAP) - GAP, len(rows) * (height + LINE + GAP) - GAP), "white"
    )
    draw = ImageDraw.Draw(page)
    for row, panels in enumerate(rows):
        for column, panel in enumerate(panels):
            if panel is not None:
                left, top = column * (width + GAP), row * (height + LINE + GAP)
                page.paste(_enlarged(panel[0]), (left, top))
                draw.text((left + width / 2, top + height + LINE / 2), panel[1], "black", font, anchor="mm")
    return page


def png(picture: Picture) -> bytes:
    """The file of a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _enlarged(pixels: Tensor) -> Picture:
    """8-bit [3, H, W] by a whole factor, without interpolation."""
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    factor = max(1, round(SIDE / max(picture.size)))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)


def _spread(count: int, at_most: int) -> list[int]:
    """Indices of so many things, or of `at_most` of them at equal distances, first and last among them."""
    if count <= at_most:
        return list(range(count))
    return [round(k * (count - 1) / (at_most - 1)) for k in range(at_most)]
