"""Weights in ncnn's format: a text file that lists the layers (.param), and their numbers one after another (.bin)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.weights import Format, Release, StateDict, locate, read_bytes

FORMAT = Format("a weight file of ncnn, not of PyTorch", starts=(bytes.fromhex("476b3001"),))  # of 16-bit floats
PARAM_MAGIC = "7767517"
HALF = 0x01306B47  # the word before a convolution's weights when these are 16-bit floats
WORD = 4  # bytes; every array starts at a multiple of it


def load(release: Release, layers: Sequence[str]) -> StateDict:
    """The tensors of a release, see `state_dict`; UserError says how to install it."""
    path, content, sha256 = read_bytes(locate(release))
    return StateDict(state_dict(path, content, layers), path, sha256)


def state_dict(path: Path, content: bytes, layers: Sequence[str]) -> dict[str, Tensor]:
    """LAYER.weight [out, in, k, k] and LAYER.bias [out] of every convolution, LAYER.weight [channels] of every PReLU.

    path, content: the .bin file; the .param file lies beside it. layers: the names of those in the order of the files.
    All become float32; in the file, weights of convolutions are 16-bit floats. Raises UserError unless the two files
    fit together to the byte and have as many such layers.
    """
    try:
        listed = _listed(path.with_suffix(".param").read_text(encoding="utf-8"))
        pairs = dict(zip(layers, _read(listed, content), strict=True))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not the weights that its .param file lists, or truncated ({error})") from None
    return {f"{layer}.{name}": array for layer, arrays in pairs.items() for name, array in arrays.items()}


def _listed(param: str) -> list[tuple[str, dict[str, str]]]:
    """Type and options of every layer with weights."""
    magic, _, *lines = param.splitlines()
    if magic != PARAM_MAGIC:
        raise ValueError(f"the .param file begins with {magic}, not {PARAM_MAGIC}")
    layers = [words for words in map(str.split, lines) if words and words[0] in ("Convolution", "PReLU")]
    return [(words[0], dict(word.split("=") for word in words if "=" in word)) for words in layers]


def _read(layers: list[tuple[str, dict[str, str]]], content: bytes) -> Iterator[dict[str, Tensor]]:
    start = 0
    for kind, options in layers:
        out = int(options["0"])
        if kind == "Convolution":
            weight, start = _halves(content, start, count=int(options["6"]))
            bias, start = _floats(content, start, out)
            side = int(options["1"])
            yield {"weight": weight.view(out, -1, side, side), "bias": bias}
        else:
            slopes, start = _floats(content, start, out)
            yield {"weight": slopes}
    if start != len(content):
        raise ValueError(f"{start} bytes listed, {len(content)} there")


def _halves(content: bytes, start: int, count: int) -> tuple[Tensor, int]:
    """16-bit floats behind the word that says so, and where the next array starts."""
    first, end = start + WORD, start + WORD + 2 * count
    if int.from_bytes(content[start:first], "little") != HALF:
        raise ValueError(f"no 16-bit weights at byte {start}")
    return torch.frombuffer(bytearray(content[first:end]), dtype=torch.float16).float(), end + -end % WORD


def _floats(content: bytes, start: int, count: int) -> tuple[Tensor, int]:
    """32-bit floats, and where the next array starts."""
    end = start + WORD * count
    return torch.frombuffer(bytearray(content[start:end]), dtype=torch.float32).view(count), end
