"""Where things lie in a run's folder. The file formats are a contract with `analysis` and `study_app`."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sr3eval.files import below

# dataset: the set's name, empty where a run has one without a name.
PER_IMAGE_COLUMNS = ["task", "method", "image_id", "metric", "value", "group", "dataset"]
# Metrics of whole sets: the value, with left_out empty, and the values without each jackknife block.
SET_COLUMNS = ["task", "method", "metric", "left_out", "value", "n", "dataset"]
# Of methods with several seeds, whose rows in the other two tables are means over these.
SEED_COLUMNS = ["task", "method", "metric", "seed", "value", "dataset"]
# Of single images, of methods with several seeds or samples: the scores of every one of their outputs.
DRAW_COLUMNS = ["task", "method", "image_id", "metric", "seed", "sample", "value", "group", "dataset"]
REFERENCE = "reference"  # the method's name, and kind, that stands for the HR images: no other may have it
ORACLE = re.compile(r" \(best of \d+\)$")  # what ends the names of rows that are of samples chosen by their scores
PRECOMPUTED = "precomputed"  # the kind of outputs that were made elsewhere
GENERATED = "none, images were generated"  # what stands for the inputs of a run without data
HR, LR = "_hr", "_lr"  # folders below images/ that are no method's: slugs do not start with "_"


def of_sample(folder: str, number: int) -> str:
    """The folder of a method's sample `number`, from 1, of each input; the first one's is the method's own."""
    return folder if number == 1 else f"{folder}@{number}"


def of_mean(folder: str) -> str:
    """The folder of the means of a method's samples."""
    return f"{folder}@mean"


def _has_picture(folder: Path) -> bool:
    """Whether a PNG file is below a folder."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(e.name.endswith(".png") if e.is_file() else _has_picture(Path(e.path)) for e in entries)


@dataclass(frozen=True)
class RunFolder:
    """Paths below RUN."""

    path: Path

    def image(self, folder: str, image_id: str) -> Path:
        """A picture of a method (by slug), or of HR or LR."""
        return self.images / folder / f"{image_id}.png"

    def note(self, folder: str, image_id: str) -> Path:
        """What a method says of one of its pictures, as JSON; there only where it says something."""
        return self.images / folder / f"{image_id}.json"

    def has_pictures(self, folders: Iterable[str]) -> bool:
        """Whether any is there of a method, by its slugs; no more than one of them is looked for."""
        return any(_has_picture(self.images / folder) for folder in folders)

    def ids(self, folder: str) -> list[str]:
        """Ids of the pictures of a method (by slug), or of HR or LR, in their order."""
        root = self.images / folder
        pictures = below(root, lambda name: name.endswith(".png"))
        return sorted(path.relative_to(root).with_suffix("").as_posix() for path in pictures)

    def sheet(self, folder: str) -> Path:
        """Pictures of a method (by slug) of generated images, which lie elsewhere, on one sheet."""
        return self.path / "sheets" / f"{folder}.png"

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def inputs(self) -> Path:
        """sha256 of the images' ids and files, once all HR and LR images are there."""
        return self.path / "images.sha256"

    @property
    def begun(self) -> Path:
        """The same, while HR and LR images are being made."""
        return self.path / "images.sha256.partial"

    @property
    def fingerprints(self) -> Path:
        """What each method's pictures were made by: they may only be continued by the same."""
        return self.path / "fingerprints.json"

    @property
    def history(self) -> Path:
        """Configs that the run had before metrics or methods were added."""
        return self.path / "history"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def per_image(self) -> Path:
        return self.path / "per_image.csv"

    @property
    def per_image_parquet(self) -> Path:
        """The same table, for readers of millions of rows."""
        return self.path / "per_image.parquet"

    @property
    def results(self) -> Path:
        return self.path / "results.csv"

    @property
    def set_scores(self) -> Path:
        return self.path / "set_scores.csv"

    @property
    def seed_scores(self) -> Path:
        return self.path / "seed_scores.csv"

    @property
    def draw_scores(self) -> Path:
        return self.path / "draw_scores.csv"

    @property
    def scored(self) -> Path:
        """By method and metric, what its scores are of: equal ones need not be computed again."""
        return self.path / "scored.json"
