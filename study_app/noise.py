"""The last bit of every shown picture is noise, so that no two sessions get the same pixels, let alone the same file.

Without it whoever sees an image in two sessions, under two models, knows the real picture: it is what stays the same.
"""

import functools
import hashlib
import io
import math
import struct
import zlib

import numpy as np
from PIL import Image

from study_app.pack import chunk

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def decode(png: bytes) -> np.ndarray:
    """RGB pixels [H, W, 3], uint8."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def noisy(pixels: np.ndarray, levels: int, key: str) -> bytes:
    """The picture as a PNG file with each value changed evenly by -levels … levels, within [0, 255].

    What the noise is follows from the secret `key` alone. The file is not compressed (PNG allows for that), so that its
    length says nothing, and noise would hardly be compressed anyway.
    """
    height, width, _ = pixels.shape
    values = pixels.reshape(height, 3 * width)
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # of the file: each begins with its filter's type, 0
    shown = np.maximum(values, levels, out=rows[:, 1:])  # all in 8 bits and in place: a subject waits for this
    shown -= np.uint8(levels)  # the lowest that it may be
    room = np.minimum(values, 255 - levels)
    room += np.uint8(levels)  # the highest
    room -= shown
    shown += np.minimum(room, _steps(levels, room.size, key).reshape(room.shape), out=room)
    return _stored(rows, width, height)


def _steps(levels: int, count: int, key: str) -> np.ndarray:
    """Evenly distributed whole numbers from 0 to 2 levels, uint8 [count], that follow from the key alone."""
    table = _digits(2 * levels + 1)
    words = -(-count // table.shape[1])
    random = np.frombuffer(hashlib.shake_128(key.encode()).digest(2 * words), np.uint16)
    return table.take(random, axis=0).reshape(-1)[:count]


@functools.cache
def _digits(base: int) -> np.ndarray:
    """The last digits of every number of 16 bits, so many that each is even to 0.002: uint8 [65536, digits]."""
    count = int(math.log(6561.5, base))
    numbers = np.arange(1 << 16)
    return np.stack([numbers // base**place % base for place in range(count)], axis=1).astype(np.uint8)


def _stored(rows: np.ndarray, width: int, height: int) -> bytes:
    """Rows [H, 1 + 3 W] of an RGB picture, without filters, as a PNG file (PNG §11) without compression."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bit, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), level=0)), (b"IEND", b""))
    return SIGNATURE + b"".join(chunk(name, data) for name, data in chunks)
