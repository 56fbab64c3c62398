"""Torch7's binary files (.t7), read without Lua, for the weights of FSRNet's authors. Code in them is skipped.

What a network computes is not rebuilt: its modules are listed in order, with their tensors. Formats: File.lua and
lib/TH of github.com/torch/torch7, as 64-bit little-endian machines write them; gmodule.lua of github.com/torch/nngraph.
"""

import math
import re
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from baselines._checkpoints import read_bytes
from sr3eval.errors import UserError

ObjectType = IntEnum(
    "ObjectType", "NIL NUMBER STRING TABLE TORCH BOOLEAN OLD_FUNCTION LEGACY_FUNCTION FUNCTION", start=0
)
ELEMENTS = {
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Half": torch.float16,
    "Float": torch.float32,
    "Double": torch.float64,
}
# By class less "Tensor" or "Storage". The class of float32 on a GPU has no element in its name: torch.CudaTensor.
DTYPES = {f"torch.{device}{element}": dtype for device in ("", "Cuda") for element, dtype in ELEMENTS.items()}
DTYPES["torch.Cuda"] = torch.float32
CLASS_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
DEEPEST = 20_000  # objects inside objects; a node of a graph may be inside the one before, at three more each
MOST_DIMENSIONS = 64
PARAMETERS = ("weight", "bias", "running_mean", "running_var", "running_std")
Steps = Generator[Any, Any, Any]  # yields the Steps that read an object inside, is sent that object, returns its own


@dataclass(eq=False, repr=False)
class Table:
    """A Lua table: keys and values in the file's order. Any object can be a key, also the table itself."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    def named(self) -> dict[str, Any]:
        """The values whose keys are strings."""
        return {key: value for key, value in self.pairs if isinstance(key, str)}

    def numbered(self) -> list[Any]:
        """The values whose keys are numbers, in the order of these."""
        pairs = [pair for pair in self.pairs if isinstance(pair[0], float)]
        return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]


@dataclass(eq=False, repr=False)
class Object:
    """An object of any class but tensors' and storages', with its contents, mostly a Table of its fields.

    A Lua function is a "function", whose contents are the variables that it captured.
    """

    class_name: str
    contents: Any = None

    def fields(self) -> dict[str, Any]:
        return self.contents.named() if isinstance(self.contents, Table) else {}


class Reader:
    """Takes objects off a file's content; ValueError where it is damaged, truncated or something else.

    Memory stays within a small multiple of the file's size, whatever sizes it claims.
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.at = memoryview(content), 0
        self.known: dict[int, Any] = {}  # tables, torch objects and functions by the index that later stands for them

    def read(self) -> Any:
        """The object at this place. Those around an inner one wait in a list: graphs nest deeper than Python calls."""
        waiting, value = [self.object()], None
        while waiting:
            try:
                waiting.append(waiting[-1].send(value))
                value = None
            except StopIteration as end:
                waiting.pop()
                value = end.value
            if len(waiting) > DEEPEST:
                raise ValueError(f"objects are more than {DEEPEST} deep")
        return value

    def take(self, size: int) -> memoryview:
        if not 0 <= size <= len(self.content) - self.at:
            raise ValueError("truncated or damaged")
        self.at += size
        return self.content[self.at - size : self.at]

    def integer(self) -> int:
        return int.from_bytes(self.take(4), "little", signed=True)

    def long(self) -> int:
        return int.from_bytes(self.take(8), "little", signed=True)

    def string(self) -> str:
        return bytes(self.take(self.integer())).decode("utf-8", "backslashreplace")

    def object(self) -> Steps:
        match kind := ObjectType(self.integer()):
            case ObjectType.NIL:
                return None
            case ObjectType.NUMBER:
                return struct.unpack("<d", self.take(8))[0]
            case ObjectType.STRING:
                return self.string()
            case ObjectType.BOOLEAN:
                return self.integer() == 1
            case ObjectType.OLD_FUNCTION:
                return (yield from self.function())
        index = self.integer()
        if index not in self.known:
            yield from self.indexed(kind, index)
        return self.known[index]

    def indexed(self, kind: ObjectType, index: int) -> Steps:
        """Read an object that comes with an index; tables and objects are known before what is in them."""
        match kind:
            case ObjectType.TABLE:
                table = self.known[index] = Table()
                for _ in range(self.integer()):
                    key = yield self.object()
                    table.pairs.append((key, (yield self.object())))
            case ObjectType.TORCH:
                yield from self.torch_object(index)
            case _:
                self.known[index] = yield from self.function()

    def function(self) -> Steps:
        self.take(self.integer())  # its code
        return Object("function", (yield self.object()))

    def torch_object(self, index: int) -> Steps:
        version = self.string()
        name = self.string() if version.startswith("V ") else version  # files of 2012 and before have no version
        if not CLASS_NAME.fullmatch(name):
            raise ValueError("truncated or damaged")
        if name.startswith("tds."):
            raise ValueError(f"holds a {name}, whose format is its own")
        if name.endswith("Storage") and (dtype := DTYPES.get(name.removesuffix("Storage"))):
            self.known[index] = self.storage(dtype)
        elif name.endswith("Tensor") and (dtype := DTYPES.get(name.removesuffix("Tensor"))):
            self.known[index] = yield from self.tensor(dtype)
        else:
            found = self.known[index] = Object(name)
            found.contents = yield self.object()

    def storage(self, dtype: torch.dtype) -> Tensor:
        data = self.take(self.long() * dtype.itemsize)
        return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)

    def tensor(self, dtype: torch.dtype) -> Steps:
        """A view of its storage, as which it may repeat elements."""
        dimensions = self.integer()
        if not 0 <= dimensions <= MOST_DIMENSIONS:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        size, stride = ([self.long() for _ in range(dimensions)] for _ in range(2))
        offset = self.long() - 1
        storage = yield self.object()
        if not size:
            return torch.empty(0, dtype=dtype)
        if not isinstance(storage, Tensor) or storage.dtype != dtype or storage.ndim != 1:
            raise ValueError("a tensor without its storage")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if min(size) < 1 or min(stride) < 0 or offset < 0 or last >= len(storage) or math.prod(size) >= 2**63:
            raise ValueError("a tensor beyond its storage")
        return storage.as_strided(size, stride, offset)


def parse(content: bytes) -> Any:
    """The object of a file: None, float, str, bool, Table, Object, or a Tensor for tensors and storages.

    Raises ValueError, which says where, for content that is damaged, truncated or no binary file of Torch7.
    """
    reader = Reader(content)
    try:
        return reader.read()
    except ValueError as error:
        raise ValueError(f"no file of Torch7, or damaged (byte {reader.at} of {len(content)}: {error})") from None


def read(path: str) -> Any:
    """`parse` of a file; raises UserError."""
    file, content, sha256 = read_bytes(path)
    try:
        return parse(content)
    except ValueError as error:
        raise UserError(f"{file}: {error}; sha256 {sha256}") from None


def modules(root: Any) -> list[Object]:
    """The objects in an object, containers before what they contain: modules of graphs in the order of computation.

    Nodes of graphs are left out, and so are functions.
    """
    found: list[Object] = []
    seen, waiting = set(), [root]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, Table | Object) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Object) and not value.class_name.startswith(("nngraph.", "graph.", "function")):
            found.append(value)
        waiting.extend(reversed(list(_inside(value))))
    return found


def _inside(value: Table | Object) -> Iterator[Any]:
    """What may hold modules; of a graph's node its own alone, since its neighbours' turn comes by the graph's list."""
    if isinstance(value, Table):
        yield from value.numbered()
        yield from value.named().values()
    elif value.class_name == "nngraph.Node":
        data = value.fields().get("data")
        yield data.named().get("module") if isinstance(data, Table) else None
    elif not value.class_name.startswith("graph."):
        yield value.fields().get("forwardnodes")  # of nn.gModule
        yield value.contents


def parameters(path: str) -> dict[str, Tensor]:
    """The PARAMETERS of a file's modules, e.g. "12.cudnn.SpatialConvolution.weight"; 12: the position in `modules`.

    Raises UserError for a file that cannot be read or holds none.
    """
    found = {
        f"{position}.{module.class_name}.{name}": tensor
        for position, module in enumerate(modules(read(path)), start=1)
        for name, tensor in _parameters(module)
    }
    if not found:
        raise UserError(f"{path}: a file of Torch7 that holds no modules with parameters")
    return found


def _parameters(module: Object) -> Iterator[tuple[str, Tensor]]:
    """Those that are tensors, without any that repeat their storage: those are no parameters, whatever their size."""
    for name in PARAMETERS:
        value = module.fields().get(name)
        if isinstance(value, Tensor) and value.numel() * value.itemsize <= value.untyped_storage().nbytes():
            yield name, value


def listing(root: Any) -> list[str]:
    """A line for each module, e.g. "12 cudnn.SpatialConvolution: weight 64x3x3x3 float32, bias 64 float32"."""
    lines = []
    for position, module in enumerate(modules(root), start=1):
        tensors = [f"{name} {_text(tensor)}" for name, tensor in _parameters(module)]
        lines.append(f"{position} {module.class_name}" + (": " + ", ".join(tensors) if tensors else ""))
    return lines


def _text(tensor: Tensor) -> str:
    return f"{'x'.join(map(str, tensor.shape))} {str(tensor.dtype).removeprefix('torch.')}"


def as_safetensors(path: str) -> bytes:
    """A file's `parameters` as the content of a safetensors file, under the same names. Raises UserError."""
    return safetensors.torch.save({name: tensor.clone().contiguous() for name, tensor in parameters(path).items()})
