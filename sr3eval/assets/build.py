"""Make the embedded photographs and crops: python sr3eval/assets/build.py PHOTOS_FOLDER

PHOTOS_FOLDER holds the wallpapers named in ATTRIBUTION.md (Debian's package lomiri-wallpapers-16.04); the other test
photographs come with scikit-image.
"""

import sys
from pathlib import Path

import skimage.data
from PIL import Image, ImageOps

from sr3eval.data import choose
from sr3eval.tasks import TASKS

HERE = Path(__file__).parent
TRAINING = {
    "aitzgorri": "aitzgorri_by_Aitzol_Berasategi.jpg",
    "analogpattern": "analogpattern_by_Peter_Nerlich.jpg",
    "bridge": "Bridge_by_Sander_Klootwijk.jpg",
    "brushes": "Picture_1A_by_freespace.jpg",
    "dragonfly": "Dragonfly_by_Bolly.jpg",
    "fig": "Picture_0B_by_freespace.jpg",
    "free": "free_by_Peter_Nerlich.jpg",
    "greentock": "greentock_by_Peter_Nerlich.jpg",
    "life": "life_by_Aitzol_Berasategi.jpg",
    "sunset": "sunset_by_Aitzol_Berasategi.jpg",
    "umang": "umang_by_Abhishek_Mudgal.jpg",
}
VALIDATION = {"seeding": "seeding_by_Clements_Engelhardt.jpg"}
TEST = {
    "friends": "friends_by_Aitzol_Berasategi.jpg",
    "picosdeeuropa": "picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "wine": "Wine_by_Jakkub_Mede.jpg",
}
TEST_OF_SCIKIT_IMAGE = ("astronaut", "chelsea", "coffee", "rocket")
TRAINING_SIDE = 960  # short side of the training photographs, pixels
TEST_SIDE = 512
TEST_CROPS = 256


def downsized(path: Path, side: int) -> Image.Image:
    """The upright photograph, shrunk to a short side of `side` pixels."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    ratio = side / min(image.size)
    return image.resize((round(image.width * ratio), round(image.height * ratio)), Image.Resampling.LANCZOS)


def save_photographs(folder: Path, sources: dict[str, str], photos: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, file in sources.items():
        downsized(photos / file, TRAINING_SIDE).save(folder / f"{name}.jpg", quality=90, subsampling=0, optimize=True)


def test_photographs(photos: Path) -> dict[str, Image.Image]:
    images = {name: downsized(photos / file, TEST_SIDE) for name, file in TEST.items()}
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
    photos = Path(sys.argv[1])
    save_photographs(HERE / "training_photos", TRAINING, photos)
    save_photographs(HERE / "validation_photos", VALIDATION, photos)
    save_crops(HERE / "photos_16_64", test_photographs(photos), TASKS["photos_16_64"].hr_size)
