"""Weights in ncnn's format: a text file that lists the layers (.param), and their numbers one after another (.bin)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sr3eval.errors import UserError

PARAM_MAGIC = "7767517"
HALF = 0x01306B47  # the word before a convolution's weights when these are 16-bit floats
WORD = 4  # bytes; every array starts at a multiple of it


def state_dict(path: Path, content: bytes, layers: Sequence[str]) -> dict[str, Tensor]:
    """LAYER.weight [out, in, k, k] and LAYER.bias [out] of every convolution, float32; `layers` in the files' order.

    path, content: the .bin file, with 16-bit weights and 32-bit biases; the .param file lies beside it. Raises
    UserError unless the two fit together to the byte and have as many convolutions as there are layers.
    """
    try:
        shapes = _shapes(path.with_suffix(".param").read_text(encoding="utf-8"))
        pairs = dict(zip(layers, _read(shapes, content), strict=True))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not the weights that its .param file lists, or truncated ({error})") from None
    return {f"{layer}.{name}": array for layer, arrays in pairs.items() for name, array in arrays.items()}


def _shapes(param: str) -> list[tuple[int, int, int]]:
    """Of every convolution: channels out, side of the kernel, number of weights."""
    magic, _, *lines = param.splitlines()
    if magic != PARAM_MAGIC:
        raise ValueError(f"the .param file begins with {magic}, not {PARAM_MAGIC}")
    layers = [words for words in map(str.split, lines) if words[:1] == ["Convolution"]]
    options = [dict(word.split("=") for word in words if "=" in word) for words in layers]
    return [(int(option["0"]), int(option["1"]), int(option["6"])) for option in options]


def _read(shapes: list[tuple[int, int, int]], content: bytes) -> list[dict[str, Tensor]]:
    layers, start = [], 0
    for out, side, count in shapes:
        flag, half = start + WORD, start + WORD + 2 * count
        bias = half + -half % WORD
        if int.from_bytes(content[start:flag], "little") != HALF:
            raise ValueError(f"no 16-bit weights at byte {start}")
        weight = torch.frombuffer(bytearray(content[flag:half]), dtype=torch.float16).float()
        start = bias + 4 * out
        offsets = torch.frombuffer(bytearray(content[bias:start]), dtype=torch.float32)
        layers.append({"weight": weight.view(out, -1, side, side), "bias": offsets.view(out)})
    if start != len(content):
        raise ValueError(f"{start} bytes listed, {len(content)} there")
    return layers
