"""The images of a study: how often each model's picture passed for the real one, with both to be looked at."""

import io
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session as Transaction

from analysis.errors import DataError
from analysis.image_rates import beta_binomial
from study_app.models import Stimulus, Study

THUMBNAIL = 160  # px, longest side: two device pixels a CSS pixel
PICTURES = {"real": Stimulus.real_png, "other": Stimulus.other_png}


@dataclass(frozen=True)
class ImageRow:
    """One image with one model, or two; `shrunk` is None where it cannot be estimated.

    model: of the other picture. rival: of the real one's place, "" for the real picture itself.
    """

    stimulus: int
    kind: str
    model: str
    rival: str
    image_id: str
    n: int
    k: int
    shrunk: float | None


def by_image(db: Transaction, study: Study, frame: pd.DataFrame | None) -> list[ImageRow]:
    """Test images first, by model and from the highest shrunk rate down; then catch and practice pictures.

    frame: responses that count, with `stimulus` and `picked_model`; None of pairs of models, which have no fool rates.
    """
    frame = pd.DataFrame({"stimulus": [], "picked_model": []}) if frame is None else frame
    counts = frame.groupby("stimulus")["picked_model"].agg(["size", "sum"])
    names = ["kind", "model", "rival", "image_id"]
    query = select(Stimulus.id, *(getattr(Stimulus, name) for name in names)).where(Stimulus.study_id == study.id)
    table = pd.DataFrame(db.execute(query).all(), columns=["stimulus", *names])
    table = table.join(counts, on="stimulus").fillna({"size": 0, "sum": 0}).rename(columns={"size": "n", "sum": "k"})
    table["shrunk"] = np.nan
    for _, part in table[table["kind"] == "test"].groupby("model"):
        table.loc[part.index, "shrunk"] = _shrunk(part)
    order = table.assign(kind_order=table["kind"].map({"test": 0, "catch": 1, "practice": 2}))
    order = order.sort_values(["kind_order", "model", "shrunk", "image_id"], ascending=[True, True, False, True])
    return [
        ImageRow(row.stimulus, row.kind, row.model, row.rival, row.image_id, int(row.n), int(row.k), _known(row.shrunk))
        for row in order.itertuples()
    ]


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


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
