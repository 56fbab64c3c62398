"""`flask study publish`: the same numbers as the export's, and nothing that tells a person or a device."""

import csv
import hashlib
import io
import json
import random
import tomllib

import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from sqlalchemy import select

from analysis import fool_rate, tables
from sr3eval.errors import UserError
from study_app import export
from study_app.bots import simulate
from study_app.models import Audit, Participant, Session
from study_app.publication import LEFT_OUT, publish
from tests.study_app.small_study import make_app, open_study, small_spec
from tests.study_app.test_export import RATES, as_its_column_says


@pytest.fixture
def app(clock, pack, tmp_path):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    open_study(app, pack, small_spec())
    return app


@pytest.fixture
def published(app, clock, tmp_path):
    """The folder of a simulated study, and the exported text that it is made of."""
    simulate(app, "study", RATES, seed=0, clock=clock, subjects=6, drop_outs=0.3)
    admin = app.extensions["study_admin"]
    publish(admin, "study", tmp_path / "data", "cc-by-4.0", random.Random(1))
    return tmp_path / "data", export.responses_csv(admin.database, "study")


def test_the_numbers_stay(published, tmp_path):
    folder, exported = published
    (tmp_path / "exported.csv").write_text(exported)
    before, after = tables.load(tmp_path / "exported.csv"), tables.load(folder / "responses.csv")
    assert len(before) == len(after)
    rates, again = (fool_rate.fool_rates(frame).to_csv() for frame in (before, after))
    assert rates == again


def test_nothing_tells_a_person(published, app):
    folder, exported = published
    rows = list(csv.DictReader(io.StringIO((folder / "responses.csv").read_text())))
    assert not set(LEFT_OUT) & set(rows[0]) and {row["received_at"][10:] for row in rows} == {"T00:00:00.000Z"}
    with app.extensions["study_database"].read() as db:
        codes = [*db.scalars(select(Participant.code)), *filter(None, db.scalars(select(Session.completion_code)))]
        assert db.scalars(select(Audit.action)).all().count("export") == 1
    texts = [path.read_text() for path in folder.iterdir()]
    assert codes and not any(code in text for code in codes for text in texts)
    came = list(dict.fromkeys(row["subject"] for row in csv.DictReader(io.StringIO(exported))))
    assert sorted({row["subject"] for row in rows}) == [f"S{number}" for number in range(1, len(came) + 1)]
    settings = tomllib.loads((folder / "study.toml").read_text())
    assert settings["recruitment"]["source"] == "open" and settings["consent"]["contact"] == ""


def test_pictures_and_columns_are_described(published, app, pack):
    folder, _ = published
    with Image.open(next((pack / "hr").rglob("*.png"))) as image:
        digest = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    pictures = list(csv.DictReader(io.StringIO((folder / "pictures.csv").read_text())))
    assert digest in {row["rival_sha256"] for row in pictures}
    schema = json.loads((folder / "codebook.json").read_text())
    columns = schema["items"]["properties"]
    rows = list(csv.DictReader(io.StringIO((folder / "responses.csv").read_text())))
    assert list(rows[0]) == list(columns)
    Draft202012Validator(schema).validate(
        [{name: as_its_column_says(cell, columns[name]) for name, cell in row.items()} for row in rows]
    )
    card = (folder / "README.md").read_text()
    assert "license: cc-by-4.0" in card and f"gave {len(rows)} answers" in card and "Consent" in card


def test_a_folder_that_exists_is_left_alone(published, app):
    folder, _ = published
    with pytest.raises(UserError, match="data: already exists; choose another name"):
        publish(app.extensions["study_admin"], "study", folder, "cc0-1.0")


def test_tables_come_as_parquet_too(published, tmp_path):
    _, exported = published
    (tmp_path / "r.parquet").write_bytes(export.to_parquet(exported, "responses"))
    (tmp_path / "r.csv").write_text(exported)
    columns = list(tables.COLUMNS)
    assert tables.load(tmp_path / "r.parquet")[columns].equals(tables.load(tmp_path / "r.csv")[columns])
    with pytest.raises(UserError, match="--codebook is not a table"):
        export.to_parquet("{}", "codebook")
