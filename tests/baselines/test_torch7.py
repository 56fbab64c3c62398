"""Torch7's files, written here after File.lua of github.com/torch/torch7, read back; damaged and hostile ones."""

import contextlib
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines import _torch7 as torch7
from benchmark import main
from sr3eval.errors import UserError


def ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def longs(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return ints(len(data)) + data


@dataclass(eq=False)
class Instance:
    """An object of a Lua class; `versioned` as all are since 2012."""

    class_name: str
    contents: Any
    versioned: bool = True


@dataclass(eq=False)
class Function:
    """A Lua function by its bytecode and the variables that it captured; kind: 6, 7 or 8, from old to new."""

    code: bytes
    captured: Any
    kind: int = 8


class Writer:
    """Writes an object as Torch7 does; a tuple of pairs becomes a table, a list one with keys from 1.

    Tensors are of `device` "" or "Cuda".
    """

    def __init__(self, device: str = "") -> None:
        self.device, self.indices, self.kept = device, {}, []

    def index(self, value: object, key: object) -> tuple[int, bool]:
        """(its index, whether it is new)."""
        self.kept.append(value)  # its id stays its own
        new = key not in self.indices
        return self.indices.setdefault(key, len(self.indices) + 1), new

    def object(self, value: Any) -> bytes:
        match value:
            case None:
                return ints(0)
            case bool():
                return ints(5, value)
            case float() | int():
                return ints(1) + struct.pack("<d", value)
            case str():
                return ints(2) + text(value)
            case Function(kind=6):
                return ints(6) + text(value.code) + self.object(value.captured)
            case torch.Tensor():
                return self.tensor(value)
        index, new = self.index(value, id(value))
        if isinstance(value, Function):
            return ints(value.kind, index) + (text(value.code) + self.object(value.captured) if new else b"")
        if isinstance(value, Instance):
            name = text("V 1") * value.versioned + text(value.class_name)
            return ints(4, index) + (name + self.object(value.contents) if new else b"")
        return ints(3, index) + (self.table(value) if new else b"")

    def table(self, value: Any) -> bytes:
        pairs = value.items() if isinstance(value, dict) else value
        pairs = list(enumerate(pairs, start=1)) if isinstance(value, list) else list(pairs)
        return ints(len(pairs)) + b"".join(self.object(key) + self.object(value) for key, value in pairs)

    def named(self, dtype: torch.dtype, kind: str) -> bytes:
        element = {dtype: element for element, dtype in torch7.ELEMENTS.items()}[dtype]
        element = "" if self.device and element == "Float" else element
        return text("V 1") + text(f"torch.{self.device}{element}{kind}")

    def tensor(self, value: torch.Tensor) -> bytes:
        index, new = self.index(value, id(value))
        if not new:
            return ints(4, index)
        head = ints(4, index) + self.named(value.dtype, "Tensor")
        if not value.numel():  # has no dimensions and no storage
            return head + ints(0) + longs(1) + ints(0)
        sizes = ints(value.ndim) + longs(*value.shape, *value.stride(), value.storage_offset() + 1)
        return head + sizes + self.storage(value)

    def storage(self, value: torch.Tensor) -> bytes:
        stored = value.untyped_storage()
        index, new = self.index(value, ("storage", stored.data_ptr()))
        if not new:
            return ints(4, index)
        flat = torch.empty(0, dtype=value.dtype).set_(stored)
        return ints(4, index) + self.named(value.dtype, "Storage") + longs(len(flat)) + flat.numpy().tobytes()


@pytest.fixture
def saved(tmp_path):
    def path(value: Any, device: str = "") -> str:
        (tmp_path / "file.t7").write_bytes(value if isinstance(value, bytes) else Writer(device).object(value))
        return str(tmp_path / "file.t7")

    return path


def plain(value: Any) -> Any:
    """Tables as lists of pairs."""
    if isinstance(value, torch7.Table):
        return [(plain(key), plain(inner)) for key, inner in value.pairs]
    return value


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.dictionaries(st.text(max_size=5) | st.floats(allow_nan=False), inner, max_size=4),
)


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_plain_values_round_trip(value):
    def pairs(value):
        return [(key, pairs(inner)) for key, inner in value.items()] if isinstance(value, dict) else value

    assert plain(torch7.parse(Writer().object(value))) == pairs(value)


@pytest.mark.parametrize("device", ["", "Cuda"])
@pytest.mark.parametrize("dtype", torch7.ELEMENTS.values(), ids=torch7.ELEMENTS)
def test_tensors_of_every_type(saved, dtype, device):
    whole = (torch.arange(24) * 5).to(dtype).reshape(2, 3, 4)
    views = [whole, whole[1].T, whole[:, ::2, 1:], torch.empty(0, dtype=dtype), whole[0, 0, :1]]
    read = torch7.read(saved(views, device)).numbered()
    assert all(torch.equal(ours, view) and ours.dtype == dtype for ours, view in zip(read, views, strict=True))
    read[0][1, 2, 3] = 1
    assert read[1][3, 2] == 1  # they are views of one storage still


def test_references_and_cycles(saved):
    shared, weight = {"a": 1.0}, torch.ones(2)
    loop = Instance("A.b_c", None)
    loop.contents = ((1.0, loop), (shared, shared), ("weight", weight), ("again", weight))
    read = torch7.read(saved(loop))
    (_, itself), (key, value), (_, first), (_, again) = read.contents.pairs
    assert itself is read and key is value and first is again
    assert read.class_name == "A.b_c" and key.named() == {"a": 1.0}


@pytest.mark.parametrize("kind", [6, 7, 8])
def test_functions_are_skipped(saved, kind):
    function = Function(b"\x1bLua code", [{"name": "x", "value": 3.0}], kind)
    read = torch7.read(saved([function, "after"]))
    skipped, after = read.numbered()
    assert skipped.class_name == "function" and after == "after"
    assert skipped.contents.numbered()[0].named() == {"name": "x", "value": 3.0}
    assert torch7.modules(read) == []


def test_classes_of_before_versions(saved):
    assert torch7.read(saved(Instance("nn.Tanh", {"x": 1.0}, versioned=False))).fields() == {"x": 1.0}


def nested(depth: int) -> bytes:
    """A table in a table in …"""
    return b"".join(ints(3, index + 1, 1) + Writer().object("inner") for index in range(depth)) + ints(0)


def test_deep_files(saved):
    value = torch7.read(saved(nested(torch7.DEEPEST - 2)))
    depth = 0
    while value is not None:
        value, depth = value.named()["inner"], depth + 1
    assert depth == torch7.DEEPEST - 2
    with pytest.raises(UserError, match="deep"):
        torch7.read(saved(nested(torch7.DEEPEST + 2)))


def convolution(seed: int, channels: int) -> Instance:
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(channels, 3, 3, 3, generator=generator), torch.randn(channels, generator=generator)
    buffers = {"gradWeight": torch.zeros(channels, 3, 3, 3), "output": torch.zeros(1)}
    return Instance("cudnn.SpatialConvolution", buffers | {"bias": bias, "weight": weight, "kW": 3})


def graph(*layers: Instance) -> Instance:
    """An nn.gModule: a chain of nodes, whose forward list is not the order of the file."""
    nodes = [Instance("nngraph.Node", {"data": {"module": layer, "mapindex": []}, "children": []}) for layer in layers]
    for node, child in pairwise(nodes):
        node.contents["children"].append(child)
    backwards = Instance("graph.Graph", {"nodes": nodes[::-1], "edges": []})
    fields = {"outnode": nodes[-1], "bg": backwards, "backwardnodes": nodes[::-1], "forwardnodes": nodes}
    return Instance("nn.gModule", fields)


@pytest.fixture
def network() -> Instance:
    norm = {
        "weight": torch.ones(5),
        "bias": torch.zeros(5),
        "running_mean": torch.ones(5),
        "running_var": torch.ones(5),
    }
    inner = [Instance("nn.SpatialBatchNormalization", norm), Instance("cudnn.ReLU", {"inplace": True})]
    return graph(convolution(0, 5), Instance("nn.Sequential", {"modules": inner}), convolution(1, 4))


LISTED = [
    "1 nn.gModule",
    "2 cudnn.SpatialConvolution: weight 5x3x3x3 float32, bias 5 float32",
    "3 nn.Sequential",
    "4 nn.SpatialBatchNormalization: weight 5 float32, bias 5 float32, running_mean 5 float32, running_var 5 float32",
    "5 cudnn.ReLU",
    "6 cudnn.SpatialConvolution: weight 4x3x3x3 float32, bias 4 float32",
]


@pytest.mark.parametrize("device", ["", "Cuda"])
def test_networks_are_listed_in_order_of_computation(saved, network, device):
    assert torch7.listing(torch7.read(saved(network, device))) == LISTED
    found = torch7.parameters(saved(network, device))
    assert [key for key in found if "Convolution" in key] == [
        f"{position}.cudnn.SpatialConvolution.{name}" for position in (2, 6) for name in ("weight", "bias")
    ]
    assert torch.equal(found["6.cudnn.SpatialConvolution.weight"], convolution(1, 4).contents["weight"])


def test_extracted_tensors(saved, network):
    transposed = Instance("nn.Linear", {"weight": torch.rand(3, 4).T, "bias": torch.rand(3)[:1]})
    path = saved([network, transposed])
    extracted, found = safetensors.torch.load(torch7.as_safetensors(path)), torch7.parameters(path)
    assert len(found) == 10 and extracted.keys() == found.keys()
    assert all(torch.equal(extracted[name], found[name]) for name in found)
    assert torch.equal(extracted["7.nn.Linear.weight"], transposed.contents["weight"])


def test_repeated_elements_are_no_parameters(saved):
    vast = torch.ones(1).expand(2**40)
    path = saved(Instance("nn.Replicate", {"weight": vast, "bias": torch.ones(2)}))
    assert torch7.listing(torch7.read(path)) == ["1 nn.Replicate: bias 2 float32"]
    assert list(torch7.parameters(path)) == ["1.nn.Replicate.bias"]


@pytest.mark.parametrize("value", [None, [1.0], torch.ones(3), Instance("nn.Tanh", {})])
def test_files_without_parameters(saved, value):
    with pytest.raises(UserError, match="no modules with parameters"):
        torch7.as_safetensors(saved(value))


def test_every_truncation_is_refused(network):
    content = Writer("Cuda").object(graph(convolution(0, 1), *network.contents["forwardnodes"][1:2]))
    assert torch7.parse(content).class_name == "nn.gModule"
    for size in range(len(content)):
        with pytest.raises(ValueError, match="no file of Torch7, or damaged"):
            torch7.parse(content[:size])


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_damage_is_refused_or_read(changes):
    damaged = bytearray(Writer().object(graph(convolution(0, 1), convolution(1, 1))))
    for place, byte in changes:
        damaged[int(place * len(damaged))] = byte
    with contextlib.suppress(ValueError):  # any other error is a failure
        torch7.listing(torch7.parse(bytes(damaged)))


HUGE = 2**31 - 1
STORAGE = ints(4, 2) + text("V 1") + text("torch.FloatStorage") + longs(3) + bytes(12)
TENSOR = ints(4, 1) + text("V 1") + text("torch.FloatTensor")
HOSTILE = {
    "empty": b"",
    "pickle": b"\x80\x02}q\x00.",
    "type": ints(9),
    "long string": ints(2, HUGE),
    "negative string": ints(2, -1),
    "long table": ints(3, 1, HUGE),
    "long function": ints(8, 1, HUGE),
    "long storage": ints(4, 1) + text("V 1") + text("torch.DoubleStorage") + longs(2**60),
    "negative storage": ints(4, 1) + text("V 1") + text("torch.DoubleStorage") + longs(-1),
    "overflowing storage": ints(4, 1) + text("V 1") + text("torch.DoubleStorage") + longs(2**61 + 1) + bytes(8),
    "dimensions": TENSOR + ints(HUGE) + bytes(1000),
    "negative dimensions": TENSOR + ints(-1),
    "beyond its storage": TENSOR + ints(1) + longs(4, 1, 1) + STORAGE,
    "offset beyond": TENSOR + ints(1) + longs(3, 1, 2) + STORAGE,
    "offset before": TENSOR + ints(1) + longs(3, 1, 0) + STORAGE,
    "strides beyond": TENSOR + ints(2) + longs(2, 2, 2, 1, 1) + STORAGE,
    "negative stride": TENSOR + ints(1) + longs(3, -1, 3) + STORAGE,
    "negative size": TENSOR + ints(2) + longs(-1, -1, 0, 0, 1) + STORAGE,
    "no storage": TENSOR + ints(1) + longs(3, 1, 1) + ints(0),
    "another's storage": TENSOR + ints(1) + longs(3, 1, 1) + STORAGE.replace(b"Float", b"Int\x00\x00"),
    "numbers for storage": TENSOR + ints(1) + longs(3, 1, 1) + Writer().object(1.0),
    "uncountable": TENSOR + ints(4) + longs(*[2**40] * 4, *[0] * 4, 1) + STORAGE,
    "a class of its own format": ints(4, 1) + text("V 1") + text("tds.Hash") + bytes(8),
    "a name with a line break": ints(4, 1) + text("V 1") + text("nn.Tanh\n") + ints(0),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_one_line(saved, content):
    with pytest.raises(UserError) as error:
        torch7.read(saved(content))
    message = str(error.value)
    assert "\n" not in message and "no file of Torch7, or damaged" in message and "sha256" in message


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["weights", *map(str, arguments)])


def test_the_command_lists_a_network(saved, network):
    lines = command(saved(network)).stdout.splitlines()
    assert "looks like: a network of Torch7, e.g. FSRNet" in lines[2] and "tested on synthetic files alone" in lines[2]
    assert lines[3:] == [*(f"    {line}" for line in LISTED), "  release: unknown"]
    assert "a file of Torch7 without a network" in command(saved([1.0])).stdout


def test_the_command_extracts(saved, network, tmp_path):
    out = tmp_path / "out.safetensors"
    result = command(saved(network), "--extract", out)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    assert len(safetensors.torch.load_file(out)) == 8
    wrong = command(saved(network), saved(network), "--extract", out)
    assert wrong.exit_code == 2 and "--extract takes one FILE" in wrong.stderr
    folder = command(saved(network), "--extract", tmp_path)
    assert folder.exit_code == 2 and "is a directory" in folder.stderr
    damaged = command(saved(b"\4\0"), "--extract", tmp_path / "none")
    assert damaged.exit_code == 1 and len(damaged.stderr.splitlines()) == 1 and not (tmp_path / "none").exists()


def test_missing_files():
    with pytest.raises(UserError, match="cannot be read"):
        torch7.read(str(Path("no such file.t7")))
