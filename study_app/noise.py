"""The last bit of every shown picture is noise, so that no two sessions get the same pixels, let alone the same file.

Without it whoever sees an image in two sessions, under two models, knows the real picture: it is what stays the same.
"""

import hashlib
import io
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
    random = np.frombuffer(hashlib.shake_128(key.encode()).digest(pixels.size), np.uint8).reshape(pixels.shape)
    lowest = np.maximum(pixels, levels) - np.uint8(levels)  # all in 8 bits: a subject waits for this
    highest = np.minimum(pixels, 255 - levels) + np.uint8(levels)
    return _stored(lowest + np.minimum(random % np.uint8(2 * levels + 1), highest - lowest))


def _stored(pixels: np.ndarray) -> bytes:
    """RGB pixels [H, W, 3] as a PNG file (PNG §11) without filters or compression; the fastest there is."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with its filter's type, 0
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bit, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), level=0)), (b"IEND", b""))
    return SIGNATURE + b"".join(chunk(name, data) for name, data in chunks)
