"""The images of a study: how often each model's picture was chosen, with both pictures to be looked at."""

import io
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session as Transaction

from analysis.errors import DataError
from analysis.image_rates import beta_binomial
from analysis.proportions import wilson
from study_app.dashboard.answers import TIE
from study_app.models import Stimulus, Study
from study_app.sessions import spec_of

THUMBNAIL = 160  # px, longest side: two device pixels a CSS pixel
PICTURES = {"real": Stimulus.real_png, "other": Stimulus.other_png}


@dataclass(frozen=True)
class ImageRow:
    """One image with one model beside the real picture, or of one pair of models as one criterion has it.

    model: of the other picture. rival: of the real one's place, "" for the real picture itself. rate: how often the
    model's picture was chosen in n answers, ties counting half; low, high: its 95 % interval (Wilson, as each answer is
    another subject's); shrunk: towards the model's, or the pair's, other images. None where they cannot be estimated.
    """

    stimulus: int
    kind: str
    model: str
    rival: str
    image_id: str
    criterion: str
    n: int
    ties: int
    rate: float | None = None
    low: float | None = None
    high: float | None = None
    shrunk: float | None = None


def by_image(db: Transaction, study: Study, counted: pd.DataFrame) -> list[ImageRow]:
    """Test images first, by model and criterion, from the highest shrunk rate down; then catch and practice pictures.

    counted: answers that count, as `rates.counted` has them.
    """
    names = ["kind", "model", "rival", "image_id"]
    query = select(Stimulus.id, *(getattr(Stimulus, name) for name in names)).where(Stimulus.study_id == study.id)
    table = pd.DataFrame(db.execute(query).all(), columns=["stimulus", *names])
    asked = pd.DataFrame({"criterion": [criterion.id for criterion in spec_of(study.config_toml).asked]})
    asked = table[["stimulus", "kind"]].merge(asked, how="cross")
    asked = asked[(asked["kind"] == "test") | ~asked.duplicated("stimulus")].drop(columns="kind")
    table = table.merge(asked, on="stimulus").join(_counts(counted), on=["stimulus", "criterion"])
    table = _rates(table.fillna({"n": 0, "k": 0, "ties": 0}).assign(shrunk=np.nan))
    for _, part in table[table["kind"] == "test"].groupby(["model", "rival", "criterion"]):
        table.loc[part.index, "shrunk"] = _shrunk(part)
    order = table.assign(kind=table["kind"].map({"test": 0, "catch": 1, "practice": 2}))
    by = ["kind", "model", "rival", "criterion", "shrunk", "image_id"]
    order = order.sort_values(by, ascending=[column != "shrunk" for column in by])
    return [_row(row) for row in table.loc[order.index].to_dict("records")]


def _counts(counted: pd.DataFrame) -> pd.DataFrame:
    """n, k and ties of each picture and criterion; k: what the model got, 1/2 of a tie. Skipped ones are left out."""
    decided = counted[counted["picked_model"].notna()]
    decided = decided.assign(criterion=decided["criterion"].astype(str), tie=decided["picked_model"] == TIE)
    found = decided.groupby(["stimulus", "criterion"])
    return found.agg(n=("picked_model", "size"), k=("picked_model", "sum"), ties=("tie", "sum"))


def _rates(table: pd.DataFrame) -> pd.DataFrame:
    n = table["n"].where(table["n"] > 0)
    low, high = wilson(table["k"], n)
    return table.assign(rate=table["k"] / n, low=low, high=high)


def _row(row: dict[str, Any]) -> ImageRow:
    known = {field.name: row[field.name] for field in fields(ImageRow) if row[field.name] == row[field.name]}
    return ImageRow(**known | {"n": int(row["n"]), "ties": int(row["ties"])})


def thumbnail(db: Transaction, study: Study, stimulus: int, which: str) -> bytes | None:
    """A small PNG of the real or the other picture; None where there is none."""
    column = PICTURES[which]
    png = db.scalar(select(column).where(Stimulus.id == stimulus, Stimulus.study_id == study.id))
    if png is None:
        return None
    with Image.open(io.BytesIO(png)) as image:
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "png")
    return buffer.getvalue()


def _shrunk(part: pd.DataFrame) -> np.ndarray:
    try:
        a, b = beta_binomial(part["k"], part["n"])
    except DataError:
        return np.full(len(part), np.nan)
    return ((part["k"] + a) / (part["n"] + a + b)).to_numpy()
