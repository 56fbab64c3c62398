"""Images in NumPy's files: one in a .npy file, or all of a set in one array of an .npz file, read at random."""

import functools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.images import from_uint8

LOCAL_HEADER = 30  # bytes of a zip file's header before a member's name


@dataclass(frozen=True, slots=True)
class Row:
    """Image number `index` of an array uint8 [N, 3, H, W] or [N, H, W, 3] in a .npy or .npz file."""

    path: Path
    index: int

    def load(self) -> Tensor:
        """[3, H, W] in [0, 1]. Raises UserError for a damaged file and for an array of another shape or type."""
        image = torch.from_numpy(np.array(opened(self.path)[self.index]))
        return from_uint8(image if image.shape[0] == 3 else image.permute(2, 0, 1))

    def __str__(self) -> str:
        return f"{self.path}, image {self.index}"


def rows(path: Path) -> Iterator[Row]:
    """Every image of a file."""
    for index in range(len(opened(path))):
        yield Row(path, index)


@functools.lru_cache(maxsize=4)
def opened(path: Path) -> NDArray[np.uint8]:
    """The images of a file, [N, 3, H, W] or [N, H, W, 3], as a memory map; see `Row.load`."""
    try:
        array = _stored(path) if path.suffix == ".npz" else np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable array ({error})") from None
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.dtype != np.uint8 or 3 not in (array.shape[1], array.shape[3]):
        raise UserError(f"{path}: holds {array.dtype} {array.shape}, not uint8 [N, 3, H, W] or [N, H, W, 3]")
    return array


def _stored(path: Path) -> NDArray[np.uint8]:
    """The images of an .npz file: its one array of four dimensions, in place."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise UserError(f"{path}: is compressed and cannot be read at random; write it with numpy.savez")
            file.seek(info.header_offset)
            header = file.read(LOCAL_HEADER)
            name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            file.seek(info.header_offset + LOCAL_HEADER + name + extra)
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
            if len(shape) == 4:
                order = "F" if fortran else "C"
                return np.memmap(path, dtype, "r", file.tell(), shape, order)  # type: ignore[call-overload]
    raise ValueError("no array of four dimensions in it")
