"""A study's votes as a data set to publish and cite: anonymous, with a card, and its pictures by checksum."""

import csv
import io
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from sqlalchemy import select

from analysis import codebook
from sr3eval.config import to_toml
from sr3eval.errors import UserError
from sr3eval.files import atomic_write
from sr3eval.packs import pixels_sha256
from study_app import export
from study_app.admin import Admin, the_study
from study_app.database import Database
from study_app.documents import filled
from study_app.models import Stimulus
from study_app.recruitment import OPEN
from study_app.sessions import spec_of
from study_app.spec import Spec

CARD = "data_card.md"
# What could tell a person, or join votes with a recruiter's records: kept as a day, or left out.
DAYS = ("received_at",)
LEFT_OUT = ("served_at", "start_received_at", "t_on", "t_off", "viewport_w", "viewport_h", "dpr")
PICTURES = ("image_id", "kind", "group", "model", "rival", "width", "height", "shown_sha256", "rival_sha256")


def publish(admin: Admin, slug: str, out: Path, licence: str, shuffle: random.Random | None = None) -> None:
    """Write the folder `out`: the answers, the codebook, the settings, the pictures' checksums and a card.

    Subjects get new codes in a random order, which nobody can trace back to their sessions; moments become days; what
    tells one device from another and all free texts are left out, and so are the recruiter's codes. What was excluded
    stays and says so. The audit log has that it was taken.

    Raises:
        UserError: an unknown study, or a folder that exists.
    """
    if out.exists():
        raise UserError(f"{out}: already exists; choose another name")
    table = export.answers_table(admin.database, slug)
    columns, rows = _anonymous(export.export(admin, slug, table), shuffle or random.Random(secrets.randbits(128)))
    with admin.database.read() as db:
        spec = spec_of(the_study(db, slug).config_toml)
    shared = replace(spec, recruitment=OPEN, consent=replace(spec.consent, contact=""))
    pictures = [dict(zip(PICTURES, row, strict=True)) for row in _pictures(admin.database, slug)]
    for name, content in {
        f"{table}.csv": export.to_csv(columns, rows),
        "pictures.csv": export.to_csv(PICTURES, (list(row.values()) for row in pictures)),
        "codebook.json": codebook.as_json(codebook.published(table, columns)),
        "study.toml": to_toml(shared),
        "README.md": _card(spec, table, columns, rows, pictures, licence),
    }.items():
        atomic_write(out / name, content.encode())


def _anonymous(text: str, shuffle: random.Random) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of what is published of a table, subjects in another order than they came."""
    found = list(csv.DictReader(io.StringIO(text)))
    codes = sorted({row["subject"] for row in found})
    shuffle.shuffle(codes)
    known = {code: f"S{number:0{len(str(len(codes)))}}" for number, code in enumerate(codes, start=1)}
    columns = [column for column in (found[0] if found else []) if column not in LEFT_OUT]
    for row in found:
        row["subject"] = known[row["subject"]]
        row.update({column: f"{row[column][:10]}T00:00:00.000Z" for column in DAYS})
    found.sort(key=lambda row: (row["subject"], int(row["trial_index"])))
    return columns, [[row[column] for column in columns] for row in found]


def _pictures(database: Database, slug: str) -> Iterator[Sequence[Any]]:
    """A row an image and pair, by PICTURES. sha256: of the pixels as 8-bit RGB, row by row, before any noise."""
    with database.read() as db:
        order = (Stimulus.kind, Stimulus.number, Stimulus.model, Stimulus.rival)
        query = select(Stimulus).where(Stimulus.study_id == the_study(db, slug).id).order_by(*order)
        for shown in db.scalars(query):
            about = (shown.image_id, shown.kind, shown.group, shown.model, shown.rival, shown.width, shown.height)
            yield *about, pixels_sha256(shown.other_png), pixels_sha256(shown.real_png)


def _card(
    spec: Spec,
    table: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    pictures: Sequence[Mapping[str, Any]],
    licence: str,
) -> str:
    """README.md of the data set."""
    at = {column: number for number, column in enumerate(columns)}
    tested = [row for row in rows if row[at["kind"]] == "test"]
    excluded = {row[at["subject"]]: row[at["excluded_reason"]] for row in rows if row[at["excluded_reason"]]}
    days = sorted({row[at["received_at"]][:10] for row in rows})
    return filled(
        CARD,
        spec=spec,
        table=table,
        subjects=len({row[at["subject"]] for row in rows}),
        excluded=len(excluded),
        answers=len(rows),
        tested=len(tested),
        images=len({row[at["image_id"]] for row in tested}),
        models=sorted({picture["model"] for picture in pictures if picture["model"]}),
        days=days,
        licence=licence,
        left_out=LEFT_OUT,
        version=metadata.version("sr3eval"),
    )
