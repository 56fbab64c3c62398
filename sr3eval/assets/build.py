"""Make the embedded photographs and crops, and say whose they are: python sr3eval/assets/build.py PACKAGES

PACKAGES is a folder that holds one folder for each Debian package named in photographs.csv and for
lomiri-wallpapers-16.04, and one for scikit-learn's wheel, unpacked:

    apt-get download NAME && dpkg -x NAME_*.deb PACKAGES/NAME
    pip download --no-deps scikit-learn && unzip scikit_learn-*.whl -d PACKAGES/scikit-learn

The other test photographs come with scikit-image. ATTRIBUTION.md is written from photographs.csv.
"""

import csv
import io
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import skimage.data
from PIL import Image, ImageOps

from sr3eval.data import choose
from sr3eval.tasks import TASKS

HERE = Path(__file__).parent
WALLPAPERS = "lomiri-wallpapers-16.04/usr/share/backgrounds"
TEST = {
    "friends": "friends_by_Aitzol_Berasategi.jpg",
    "picosdeeuropa": "picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "wine": "Wine_by_Jakkub_Mede.jpg",
}
TEST_OF_SCIKIT_IMAGE = ("astronaut", "chelsea", "coffee", "rocket")
TRAINING_SIDE = 960  # short side of the training photographs, pixels
TEST_SIDE = 512
TEST_CROPS = 256


def photographs() -> list[dict[str, str]]:
    """The rows of photographs.csv: training and validation photographs, where they are from, whose they are."""
    with (HERE / "photographs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def downsized(content: bytes, side: int) -> Image.Image:
    """The upright photograph, shrunk to a short side of `side` pixels where it is longer."""
    with Image.open(io.BytesIO(content)) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    ratio = side / min(image.size)
    if ratio >= 1:
        return image
    return image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.LANCZOS)


def content_of(packages: Path, row: dict[str, str]) -> bytes:
    """A photograph's file: below its package, or inside a Qt resource file there, as FILE.rcc:/PATH."""
    outer, _, inner = row["path"].partition(":")
    content = (packages / row["package"] / outer).read_bytes()
    return dict(resources(content))[inner] if inner else content


def resources(content: bytes) -> Iterator[tuple[str, bytes]]:
    """(path, content) of every uncompressed file in a Qt resource file (rcc's binary format, QResource's reader)."""
    version, tree, data, names = struct.unpack(">4I", content[4:20])
    size = 14 if version < 2 else 22
    waiting = [(0, "")]
    while waiting:
        node, folder = waiting.pop()
        at = tree + node * size
        name_at, flags, first, second = struct.unpack(">IHII", content[at : at + 14])
        length = int.from_bytes(content[names + name_at : names + name_at + 2], "big")
        name = content[names + name_at + 6 :][: 2 * length].decode("utf-16-be") if node else ""
        path = f"{folder}/{name}" if name else folder
        if flags & 2:  # a folder: `first` children from node `second` on
            waiting += [(child, path) for child in range(second, second + first)]
        elif not flags & 5:  # neither zlib nor zstd
            start = data + second
            yield path, content[start + 4 :][: int.from_bytes(content[start : start + 4], "big")]


def save_photographs(packages: Path) -> None:
    for row in photographs():
        path = HERE / row["folder"] / f"{row['name']}.jpg"
        path.parent.mkdir(exist_ok=True)
        image = downsized(content_of(packages, row), TRAINING_SIDE)
        image.save(path, quality=90, subsampling=0, optimize=True)


def attribution() -> str:
    """ATTRIBUTION.md: its text up to the tables of photographs.csv, those, and its text from the test set on."""
    text = (HERE / "ATTRIBUTION.md").read_text(encoding="utf-8")
    before, after = text[: text.index("## Training")], text[text.index("## Test") :]
    tables = []
    for folder, title in (("training_photos", "Training"), ("validation_photos", "Validation")):
        tables += [f"## {title}: `{folder}/`", "", "| file | original | author | licence |", "|---|---|---|---|"]
        tables += [_line(row) for row in photographs() if row["folder"] == folder] + [""]
    return before + "\n".join(tables) + "\n" + after


def _line(row: dict[str, str]) -> str:
    name = row["path"].rsplit("/", 1)[1] if ".rcc:" in row["path"] else row["path"].removeprefix("usr/share/")
    original = f"[{name}]({row['source']})" if row["source"] else name
    changes = f"; {row['changes']} by the packager" if row["changes"] else ""
    author = f"{row['author']}, {row['year']}" if row["year"] else row["author"]
    return f"| {row['name']}.jpg | {original} ({row['package']}{changes}) | {author} | {row['licence']} |"


def tested_photographs(packages: Path) -> dict[str, Image.Image]:
    images = {name: downsized((packages / WALLPAPERS / f).read_bytes(), TEST_SIDE) for name, f in TEST.items()}
    return images | {name: Image.fromarray(getattr(skimage.data, name)()) for name in TEST_OF_SCIKIT_IMAGE}


def save_crops(folder: Path, images: dict[str, Image.Image], size: int) -> None:
    """Cut every photograph along a grid and keep crops chosen by the hash of their ids, not by their looks."""
    cells = {
        f"{name}/{row:02d}_{column:02d}": image.crop((column * size, row * size, (column + 1) * size, (row + 1) * size))
        for name, image in images.items()
        for row in range(image.height // size)
        for column in range(image.width // size)
    }
    for crop_id in choose(list(cells), TEST_CROPS):
        path = folder / f"{crop_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cells[crop_id].save(path, optimize=True)


if __name__ == "__main__":
    packages = Path(sys.argv[1])
    save_photographs(packages)
    save_crops(HERE / "photos_16_64", tested_photographs(packages), TASKS["photos_16_64"].hr_size)
    (HERE / "ATTRIBUTION.md").write_text(attribution(), encoding="utf-8")
