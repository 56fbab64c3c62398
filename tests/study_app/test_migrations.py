"""A database of an earlier version is brought up to date with all that is in it, and back, on both databases."""

import contextlib

import pytest
from alembic import command
from sqlalchemy import MetaData, create_engine, insert, select, text
from sqlalchemy.exc import IntegrityError

from study_app.database import Database, migrations

CONFIG = 'title = "Pictures"\ntask = 2\nimages = 1\nper_subject = 1\n'
OLD = {
    "study": [{"id": 1, "slug": "s", "state": "running", "config_toml": CONFIG, "models": "sr3", "created_at": 1}],
    "condition": [{"id": 1, "study_id": 1, "label": "sr3", "model": "sr3", "exposure_ms": 3000}],
    "stimulus": [
        {"id": 1, "study_id": 1, "kind": "test", "number": 0, "model": "sr3", "image_id": "a", "width": 1, "height": 1}
    ],
    "plan_slot": [{"id": i, "condition_id": 1, "number": i} for i in (1, 2)],
    "plan_trial": [{"id": i, "slot_id": i, "idx": 0, "stimulus_id": 1, "real_side": "left"} for i in (1, 2)],
    "participant": [{"id": i, "study_id": 1, "code": f"code{i}", "consent_version": "1"} for i in (1, 2)],
    "session": [
        {"id": 1, "participant_id": 1, "slot_id": 1, "state": "finished", "finished_at": 9, "completion_code": "c"}
        | {"excluded_reason": "failed_catch"},
        {"id": 2, "participant_id": 2, "slot_id": 2, "state": "active", "finished_at": None, "completion_code": None}
        | {"excluded_reason": ""},
    ],
    "trial": [
        {"id": i, "session_id": i, "plan_trial_id": i, "token": f"t{i}", "left_token": f"l{i}", "right_token": f"r{i}"}
        | {"middle_token": f"m{i}", "issued_at": 5, "started_at": started, "attempt": started and "a"}
        | {"showings": 1 if started else 0}
        for i, started in ((1, 6), (2, None))
    ],
    "response": [
        {"id": 1, "trial_id": 1, "client_uuid": "u", "received_at": 8, "timing_ok": True, "choice": "left"}
        | {"input": "key", "viewport_w": 900, "viewport_h": 600, "dpr": 1.25, "fullscreen": True}
        | dict.fromkeys(("t_on", "t_off", "exposure_ms", "frame_median_ms", "frame_max_gap_ms", "hidden_ms"), 1.5)
        | dict.fromkeys(("rt_ms", "rt_from_onset_ms", "css_w", "css_h", "decode_ms"), 2.5)
        | dict.fromkeys(("n_frames", "blur_count", "natural_w", "natural_h", "early_attempts"), 3)
    ],
}
FILLED = {"config_sha256": "0" * 64, "consent_sha256": "0" * 64, "consent_at": 1, "started_at": 1, "expires_at": 2}
FILLED |= {"body_sha256": "0" * 64}
FILLED |= {"real_png": b"x", "other_png": b"y"}


@pytest.fixture
def migrate(url):
    """migrate(verb, revision): Alembic's own command on the database."""
    database = Database(url)
    engine = create_engine(url)

    def run(verb, revision):
        with database.migrating() as connection:
            getattr(command, verb)(migrations(connection), revision)

    run.engine = engine
    yield run
    engine.dispose()


def reflected(engine):
    tables = MetaData()
    tables.reflect(engine)
    return tables.tables


def write_old(engine):
    tables = reflected(engine)
    with engine.begin() as connection:
        for name, rows in OLD.items():
            for row in rows:
                blank = {column: value for column, value in FILLED.items() if column in tables[name].columns}
                connection.execute(insert(tables[name]), [blank | row])


def rows(engine, *columns):
    """Of the columns "table.column", the values in the order of the rows."""
    tables = reflected(engine)
    names = [column.split(".") for column in columns]
    with engine.connect() as connection:
        table = tables[names[0][0]]
        return [tuple(row) for row in connection.execute(select(*(table.c[n] for _, n in names)).order_by(table.c.id))]


def test_old_sessions_and_studies_stay_what_they_were(migrate):
    migrate("upgrade", "0001")
    write_old(migrate.engine)
    before = {name: rows(migrate.engine, *(f"{name}.{c}" for c in OLD[name][0])) for name in OLD}
    migrate("upgrade", "0003")
    assert rows(migrate.engine, "session.state", "session.excluded_reason") == [
        ("finished", "failed_catch"),
        ("active", ""),
    ]
    assert rows(migrate.engine, "trial.left_served_at", "trial.middle_served_at") == [(5, 5), (None, None)]
    assert rows(migrate.engine, "participant.identity_hash") == [(None,), (None,)]
    [(config,)] = rows(migrate.engine, "study.config_toml")
    assert "noise = 0\nreplace_failed = false" in config and 'title = "Pictures"' in config
    with migrate.engine.begin() as connection:
        connection.execute(text("UPDATE session SET state = 'withdrew' WHERE id = 2"))
    migrate("downgrade", "0001")
    after = {name: rows(migrate.engine, *(f"{name}.{c}" for c in OLD[name][0])) for name in OLD}
    assert after.pop("session") == [
        before["session"][0],
        (*before["session"][1][:3], "expired", *before["session"][1][4:]),
    ]
    before.pop("session")
    assert after == before
    migrate("upgrade", "head")
    migrate("downgrade", "0006")
    assert rows(migrate.engine, "trial.issued_at") == [(5,), (None,)]
    migrate("upgrade", "0011")
    screen = [f"response.{name}" for name in ("viewport_w", "viewport_h", "dpr", "css_w", "css_h", "fullscreen")]
    with migrate.engine.begin() as connection:
        connection.execute(text("UPDATE response SET dpr = NULL, viewport_h = NULL, fullscreen = NULL"))
    assert rows(migrate.engine, *screen) == [(900, None, None, 2.5, 2.5, None)]
    migrate("downgrade", "0010")
    assert rows(migrate.engine, *screen) == [(900, 0, 0.0, 2.5, 2.5, False)]
    for nothing in ("dpr", "fullscreen"):
        with pytest.raises(IntegrityError), migrate.engine.begin() as connection:
            connection.execute(text(f"UPDATE response SET {nothing} = NULL"))
    migrate("upgrade", "head")
    with contextlib.closing(migrate.engine.raw_connection()) as connection:
        if migrate.engine.dialect.name == "sqlite":
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
