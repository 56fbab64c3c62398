"""Where things lie in a run's folder. The file formats are a contract with `analysis` and `study_app`."""

from dataclasses import dataclass
from pathlib import Path

HR, LR = "_hr", "_lr"  # folders below images/ that are no method's: slugs do not start with "_"


@dataclass(frozen=True)
class RunFolder:
    """Paths below RUN."""

    path: Path

    def image(self, folder: str, image_id: str) -> Path:
        """A picture of a method (by slug), or of HR or LR."""
        return self.path / "images" / folder / f"{image_id}.png"

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def per_image(self) -> Path:
        return self.path / "per_image.csv"

    @property
    def results(self) -> Path:
        return self.path / "results.csv"
