"""TensorFlow's V1 checkpoints, read without TensorFlow: an uncompressed LevelDB table of SavedTensorSlices messages.

Formats: LevelDB's doc/table_format.md; TensorFlow's core/util/saved_tensor_slice.proto and core/framework/tensor.proto.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.weights import StateDict, read, read_bytes

FOOTER_SIZE = 48
MAGIC = bytes.fromhex("57fb808b247547db")  # of a LevelDB table, at the end of the file
PYTORCH_STARTS = (b"PK", b"\x80")  # zip, pickle; a table starts with a zero
FLOAT32 = 1  # in types.proto


class Cursor:
    """Takes bytes and numbers off a buffer; ValueError where it ends too early."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def left(self) -> bool:
        return self.at < len(self.data)

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError("truncated or damaged")
        self.at += size
        return self.data[self.at - size : self.at]

    def varint(self) -> int:
        """Seven bits a byte, the lowest first, at most 64."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("damaged: a number without end")

    def handle(self) -> tuple[int, int]:
        """(offset, size) of a block."""
        return self.varint(), self.varint()


@dataclass
class Message:
    """A protocol buffer: by field number, its numbers and its other values (strings, messages, packed arrays)."""

    numbers: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    parts: dict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def parse(cls, data: bytes) -> "Message":
        message, cursor = cls(), Cursor(data)
        while cursor.left():
            number, wire_type = divmod(cursor.varint(), 8)
            match wire_type:
                case 0:
                    message.numbers[number].append(cursor.varint())
                case 1 | 5:
                    message.parts[number].append(cursor.take(8 if wire_type == 1 else 4))
                case 2:
                    message.parts[number].append(cursor.take(cursor.varint()))
                case _:
                    raise ValueError("a table, but not of protocol buffers")
        return message

    def number(self, number: int) -> int:
        return self.numbers[number][-1] if self.numbers[number] else 0

    def text(self, number: int) -> str:
        return b"".join(self.parts[number][-1:]).decode()

    def message(self, number: int) -> "Message":
        return Message.parse(b"".join(self.parts[number]))  # repeated ones are merged, as the format says


def read_table(path: str, method: str) -> StateDict:
    """The float32 tensors of a V1 checkpoint for `method`, by their names and in TensorFlow's layout.

    Tensors of other types are left out. Raises UserError for a missing, truncated, damaged or foreign file.
    """
    file, content, sha256 = read_bytes(path)
    if content.startswith(PYTORCH_STARTS):
        raise read(path, method).wrong(method, "a PyTorch checkpoint, not a TensorFlow V1 table")
    try:
        return StateDict(_tensors(content), file, sha256)
    except ValueError as error:
        raise UserError(f"{file}: not weights of {method} ({error}); sha256 {sha256}") from None


def _tensors(content: bytes) -> dict[str, Tensor]:
    entries = dict(_entries(content))
    declared = Message.parse(entries.pop(b"", b"")).message(1).parts[1]
    if not declared:
        raise ValueError("a LevelDB table, but not a TensorFlow V1 checkpoint")
    shapes = dict(_named_shape(tensor) for tensor in map(Message.parse, declared) if tensor.number(3) == FLOAT32)
    slices = [Message.parse(value).message(2) for value in entries.values()]
    return {s.text(1): _tensor(s, shapes[s.text(1)]) for s in slices if s.text(1) in shapes}


def _named_shape(tensor: Message) -> tuple[str, tuple[int, ...]]:
    dimensions = map(Message.parse, tensor.message(2).parts[2])
    return tensor.text(1), tuple(dimension.number(1) for dimension in dimensions)


def _tensor(saved_slice: Message, shape: tuple[int, ...]) -> Tensor:
    floats = bytearray().join(saved_slice.message(3).parts[5])
    if not floats or len(floats) != 4 * math.prod(shape):
        raise ValueError(f"{saved_slice.text(1)}: {len(floats)} bytes of values for the shape {shape}")
    return torch.frombuffer(floats, dtype=torch.float32).reshape(shape)


def _entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table: blocks found through the index block, found through the footer."""
    if not content.endswith(MAGIC) or len(content) < FOOTER_SIZE:
        raise ValueError("not a TensorFlow V1 table, or truncated")
    footer = Cursor(content[-FOOTER_SIZE:])
    footer.handle()  # of the metaindex, which is empty
    for _, handle in _block(content, *footer.handle()):
        yield from _block(content, *Cursor(handle).handle())


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a block, of whose key each leaves out what it shares with the one before."""
    block = Cursor(content, offset)
    data, compression, checksum = block.take(size), block.take(1), block.take(4)
    if _masked(_crc32c(data + compression)) != int.from_bytes(checksum, "little"):
        raise ValueError("damaged: a block's checksum differs")
    if compression != b"\0":
        raise ValueError("a compressed table, which TensorFlow does not write")
    restarts = int.from_bytes(data[-4:], "little")
    entries = Cursor(data[: max(0, size - 4 * (restarts + 1))])
    key = b""
    while entries.left():
        shared, unshared, length = entries.varint(), entries.varint(), entries.varint()
        key = key[:shared] + entries.take(unshared)
        yield key, entries.take(length)


def _crc32c_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [entry >> 1 ^ (0x82F63B78 if entry & 1 else 0) for entry in table]
    return table


CRC32C = _crc32c_table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    """LevelDB's rotation by 15 bits and offset, which guard against checksums of checksums."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
