"""SRFlow (Lugmayr et al. 2020, arXiv:2006.14200): images drawn from a conditional normalising flow.

Reads the files of github.com/andreas128/SRFlow (SRFlow_DF2K_4X.pth, SRFlow_DF2K_8X.pth, SRFlow_CelebA_8X.pth; read at
5a007ad), and those of other sizes that its code writes.
"""

import math
import re
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines._fingerprints import options_text
from baselines._pixels import Quantize, on_official_grid, truncate_to_8bit
from baselines._rrdb import renamed
from baselines._srflow_network import STACKED, SRFlowNet, Structure
from baselines.esrgan import BICUBIC
from sr3eval.device import default_device
from sr3eval.errors import UserError
from sr3eval.images import bicubic_up
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint
from sr3eval.weights import Release, StateDict, load_state, read

NAME = "srflow"
LICENCE = "CC BY-NC-SA 4.0, non-commercial"
RELEASES = tuple(
    Release("SRFlow", file, "github.com/andreas128/SRFlow", LICENCE)
    for file in ("SRFlow_DF2K_4X.pth", "SRFlow_DF2K_8X.pth", "SRFlow_CelebA_8X.pth")
)
KEYS = {NAME: r"flowUpsamplerNet\."}
FLOW = "flowUpsamplerNet."
# In every file, but nowhere on the way to the image: the encoder's own output, and a convolution that nothing calls.
UNUSED = r"RRDB\.(HRconv|conv_last)\.|flowUpsamplerNet\.f\.0\."
RELEASED = {
    Structure(scale, 64, 32, blocks, 64, levels, steps=16, unconditional=2): name
    for name, scale, blocks, levels in [
        ("SRFlow_DF2K_4X", 4, 23, 3),
        ("SRFlow_DF2K_8X", 8, 23, 4),
        ("SRFlow_CelebA_8X", 8, 8, 4),
    ]
}
LOG_FACTOR = 3  # of the log-scales of last convolutions
GAIN_OFFSET = 2  # added to a coupling's gain before the sigmoid
REPAIRS = (0.75, 0.5, 0.25, 0.0)  # parts of the heat at which an image is tried again that has NaN or infinite pixels
State = dict[str, Tensor]


class Tensors:
    """The tensors of a file's flow, in float64; each is taken out of it once, so that its memory is free again."""

    def __init__(self, saved: StateDict) -> None:
        self.saved = saved

    def take(self, key: str, *shape: int) -> Tensor:
        """A tensor of this shape; UserError where it is missing or has another."""
        value = self.saved.weights.pop(FLOW + key, None)
        found = None if value is None else tuple(value.shape)
        if value is None or found != shape:
            raise self.saved.wrong(NAME, f"{FLOW}{key}: {found}, not {shape}")
        return value.double()

    def norm(self, key: str, channels: int) -> tuple[Tensor, Tensor]:
        """(bias, gain) [channels] each of an activation norm (x + bias) * gain."""
        bias, logs = (self.take(f"{key}.actnorm.{name}", 1, channels, 1, 1).flatten() for name in ("bias", "logs"))
        return bias, logs.exp()

    def normed(self, key: str, out: int, inputs: int, kernel: int) -> tuple[Tensor, Tensor]:
        """(weight, bias) of a convolution without bias and the activation norm after it."""
        bias, gain = self.norm(key, out)
        return self.take(f"{key}.weight", out, inputs, kernel, kernel) * gain.view(-1, 1, 1, 1), bias * gain

    def scaled(self, key: str, out: int, inputs: int) -> tuple[Tensor, Tensor]:
        """(weight, bias) of a 3x3 convolution and the scales after it; its even channels come first, then the odd."""
        gain = (LOG_FACTOR * self.take(f"{key}.logs", out, 1, 1)).exp()
        weight = self.take(f"{key}.weight", out, inputs, 3, 3) * gain[..., None]
        bias = self.take(f"{key}.bias", out) * gain.flatten()
        return torch.cat((weight[0::2], weight[1::2])), torch.cat((bias[0::2], bias[1::2]))


def numbers(keys: Iterable[str], pattern: str) -> set[int]:
    """The numbers that the pattern's group finds in keys."""
    return {int(match[1]) for key in keys if (match := re.match(pattern, key))}


def structure(saved: StateDict) -> Structure:
    """The sizes of the network that has these weights; UserError where it is no SRFlow, or of a scale that none has."""
    weights = saved.weights
    layers, couplings, splits = (
        numbers(weights, rf"flowUpsamplerNet\.layers\.(\d+)\.{part}") for part in ("", r"affine\.", r"conv\.")
    )
    levels = max(layers, default=0) + 1 - len(layers)  # each begins with a layer that has no weights
    scale = 2 ** len(numbers(weights, r"RRDB\.upconv(\d)\."))
    blocks = len(numbers(weights, r"RRDB\.RRDB_trunk\.(\d+)\."))
    if not couplings or scale not in STACKED or not 0 < levels <= scale.bit_length() or blocks <= max(STACKED[scale]):
        found = f"it has {len(couplings)} couplings on {levels} levels, and {blocks} RRDBs for {scale}x"
        raise saved.wrong(NAME, found if layers else "no flow in it")
    sized = (
        "RRDB.conv_first.weight",
        "RRDB.RRDB_trunk.0.RDB1.conv1.weight",
        f"{FLOW}layers.{min(couplings)}.affine.fAffine.0.weight",
    )
    if unfit := [key for key in sized if key not in weights or not weights[key].ndim]:
        raise saved.wrong(NAME, f"no {unfit[0]}" if unfit[0] not in weights else f"{unfit[0]} is a number")
    features, growth, hidden = (weights[key].shape[0] for key in sized)
    steps, unconditional = len(couplings) // levels, len(layers - couplings - splits) // levels
    return Structure(scale, features, growth, blocks, hidden, levels, steps, unconditional)


def transposed(weight: Tensor, stride: int) -> Tensor:
    """Weights [out, in, 3, 3] for an image enlarged by repetition, as those of a transposed convolution of the image.

    Such enlarging is itself a transposed convolution, with ones [stride, stride]: the kernels of both are convolved.
    """
    padded = F.pad(weight.flip(2, 3), [stride - 1] * 4)
    return F.avg_pool2d(padded, stride, stride=1, divisor_override=1).transpose(0, 1)


def under(prefix: str, state: State) -> State:
    return {f"{prefix}.{name}": value for name, value in state.items()}


def layer(weight: Tensor, bias: Tensor) -> State:
    return {"weight": weight, "bias": bias}


def mixing(tensors: Tensors, key: str, channels: int) -> State:
    """A step's activation norm and matrix W, as y = M (x + bias) with M = W diag(gain), and x = M^-1 y - bias."""
    bias, gain = tensors.norm(key, channels)
    matrix = tensors.take(f"{key}.invconv.weight", channels, channels) * gain
    try:
        inverse = torch.linalg.inv(matrix)
    except torch.linalg.LinAlgError:
        raise tensors.saved.wrong(NAME, f"{FLOW}{key}.invconv.weight has no inverse") from None
    mix, unmix = layer(matrix[..., None, None], matrix @ bias), layer(inverse[..., None, None], -bias)
    return under("mix", mix) | under("unmix", unmix)


def affine(tensors: Tensors, key: str, sizes: Structure, inputs: int, outputs: int, stride: int) -> State:
    """An `Affine`."""
    near = inputs + sizes.features
    weight, bias = tensors.normed(f"{key}.0", sizes.hidden, near + sizes.stacked, 3)
    hidden = layer(*tensors.normed(f"{key}.2", sizes.hidden, sizes.hidden, 1))
    out = layer(*tensors.scaled(f"{key}.4", 2 * outputs, sizes.hidden))
    out["bias"][outputs:] += GAIN_OFFSET
    first = under("near", layer(weight[:, :near], bias)) | {"stacked.weight": transposed(weight[:, near:], stride)}
    return first | under("hidden", hidden) | under("out", out)


def coupling(tensors: Tensors, key: str, sizes: Structure, level: int) -> State:
    """A `Coupling`."""
    channels, stride = sizes.channels(level), sizes.stride(level)
    kept = channels // 2
    by_condition = affine(tensors, f"{key}.fFeatures", sizes, 0, channels, stride)
    by_half = affine(tensors, f"{key}.fAffine", sizes, kept, channels - kept, stride)
    return under("by_condition", by_condition) | under("by_half", by_half)


def folded(tensors: Tensors, sizes: Structure) -> State:
    """The flow's levels. The release numbers their layers through, from the squeeze that begins the finest."""
    state: State = {}

    def add(place: str, part: State) -> None:
        state.update({key: value.float() for key, value in under(f"levels.{place}", part).items()})

    index = 0
    for level in range(sizes.levels):
        channels = sizes.channels(level)
        for step in range(sizes.unconditional + sizes.steps):
            index += 1
            place, key = f"{level}.steps.{step}", f"layers.{index}"
            add(place, mixing(tensors, key, channels))
            if step >= sizes.unconditional:
                add(f"{place}.coupling", coupling(tensors, f"{key}.affine", sizes, level))
        index += 1
        if sizes.split(level):
            add(f"{level}.prior", layer(*tensors.scaled(f"layers.{index}.conv", channels, channels // 2)))
            index += 1
    return state


def encoder_key(key: str) -> str:
    """Our name of a tensor of the encoder; that of any other remains."""
    name = key.removeprefix("RRDB.")
    return key if name == key else f"encoder.{renamed(re.sub(r'^upconv', 'conv_up.', name))}"


def network(saved: StateDict) -> SRFlowNet:
    """The network of a file, whose tensors are used up; UserError names the first one that is wrong or missing."""
    sizes = structure(saved)
    unused = rf"{UNUSED}|RRDB\.upconv{sizes.scale.bit_length() - 1}\."  # the last one enlarges for that output alone
    flow = folded(Tensors(saved), sizes)
    rest = {key: value.float() for key, value in saved.weights.items() if not re.match(unused, key)}
    encoder = {encoder_key(key): value for key, value in rest.items()}
    with torch.device("meta"):
        flownet = SRFlowNet(sizes)
    load_state(flownet, flow | encoder, saved, NAME)
    return flownet


def even(lr: Tensor) -> Tensor:
    """[N, 3, h, w] with a further row and column where h and w are odd: reflected, as the release does with NumPy."""
    for dim in (2, 3):
        side = lr.shape[dim]
        if side % 2:
            lr = torch.cat((lr, lr.narrow(dim, max(side - 2, 0), 1)), dim)
    return lr


def drawn(seeds: Sequence[int], shapes: Sequence[tuple[int, ...]], heat: float) -> list[Tensor]:
    """Noise of standard deviation `heat`, [N, *shape] each: what the release draws for one image after manual_seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return [torch.stack([torch.normal(0.0, heat, shape, generator=g) for g in generators]) for shape in shapes]


class SRFlow(Method):
    """Trained weights with their sampler."""

    name = NAME
    scale: int

    def __init__(self, flownet: SRFlowNet, heat: float, quantize: Quantize, sha256: str) -> None:
        sizes = flownet.structure
        self.scale, self.heat, self.quantize = sizes.scale, heat, quantize
        self.stochastic = heat > 0
        self.facts = Facts({"weights": sha256}, RELEASED.get(sizes, f"SRFlow, of no release: {sizes}"), BICUBIC)
        self.fingerprint = fingerprint(NAME, options_text(weights=sha256, heat=heat, quantize=quantize))
        self.device = default_device()
        flownet = flownet.eval().requires_grad_(False)
        self.network = flownet.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, scale * h, scale * w], float32 in [0, 1]; any size. Same seed, same image.

        Notes say of each that had NaN or infinite pixels what is there instead (see `repaired`).
        """
        sr = self.sampled(lr, seeds, self.heat)
        notes: list[dict[str, float | str]] = [{} for _ in seeds]
        for i in range(len(sr)):
            if not sr[i].isfinite().all():
                sr[i], notes[i] = self.repaired(lr[i : i + 1], seeds[i])
        return Upscaled(on_official_grid(sr, self.quantize, truncate_to_8bit), notes)

    def sampled(self, lr: Tensor, seeds: Sequence[int], heat: float) -> Tensor:
        """[N, 3, scale * h, scale * w], not clamped."""
        height, width = (self.scale * side for side in lr.shape[-2:])
        lr = even(lr.to(self.device))
        noise = drawn(seeds, self.network.noise_shapes(*lr.shape[-2:]), heat)
        sr = self.network.decode(lr, [part.to(self.device) for part in noise])
        return sr[..., :height, :width].cpu()

    def repaired(self, lr: Tensor, seed: int) -> tuple[Tensor, dict[str, float | str]]:
        """An image [3, H, W] in place of one that is not finite, and the note that says so.

        The same noise at lower heats, whichever gives a finite image first; where none does, bicubic. (The release
        leaves black or white regions.)
        """
        for heat in (part * self.heat for part in REPAIRS):
            sr = self.sampled(lr, [seed], heat)
            if sr.isfinite().all():
                return sr[0], {"not_finite_at_heat": self.heat, "made_at_heat": heat}
        height, width = (self.scale * side for side in lr.shape[-2:])
        return bicubic_up(lr, (height, width))[0], {"not_finite_at_heat": self.heat, "made_by": "bicubic"}


def build(*, weights: str, heat: float = 0.9, quantize: Quantize = "official") -> SRFlow:
    """Load a released file, or another that its code wrote (the stacked blocks must be those of the releases).

    Args:
        weights: the file.
        heat: standard deviation of the noise; 0 gives the flow's one picture without any.
        quantize: "official" truncates to 8 bit, "none" keeps floats.

    Raises:
        UserError: a file that holds no such network, or a heat out of range.
    """
    if not 0 <= heat < math.inf:
        raise UserError(f"heat = {heat}: must not be negative (the release samples at 0.9)")
    saved = read(weights, NAME)
    return SRFlow(network(saved), heat, quantize, saved.sha256)
