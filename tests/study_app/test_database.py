"""The tables: what migrations make is what the models say, and what must not be cannot be stored."""

import random

import click
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError

from study_app import create_app, statements
from study_app.bots import Bot, simulate
from study_app.database import Database, migrations, upgrade
from study_app.models import Base
from study_app.statements import PLACES
from tests.study_app.small_study import everything, make_app, open_study, small_spec


def where(index):
    return {name: str(value) for name, value in index.get("dialect_options", {}).items()}


def schema(engine):
    """Everything that a database says of its tables, constraints by name."""
    look = inspect(engine)
    tables = sorted(set(look.get_table_names()) - {"alembic_version"})
    assert tables
    named = lambda items: sorted(items, key=lambda item: item["name"])  # noqa: E731
    return {
        table: {
            "columns": [{**c, "type": str(c["type"])} for c in look.get_columns(table)],
            "primary": look.get_pk_constraint(table),
            "foreign": named(look.get_foreign_keys(table)),
            "unique": named(look.get_unique_constraints(table)),
            "check": named(look.get_check_constraints(table)),
            "index": [{**i, "dialect_options": where(i)} for i in named(look.get_indexes(table))],
        }
        for table in tables
    }


def test_migrations_make_what_the_models_say(url, request, tmp_path):
    migrated = Database(url).engine
    with migrated.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    found = schema(migrated)
    if url.startswith("sqlite"):
        direct = create_engine(f"sqlite:///{tmp_path / 'direct.sqlite'}")
    else:
        with migrated.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        direct = migrated
    Base.metadata.create_all(direct)
    assert {table: {**rest, "columns": []} for table, rest in schema(direct).items()} == {
        table: {**rest, "columns": []} for table, rest in found.items()
    }
    assert {t: sorted(map(str, rest["columns"])) for t, rest in schema(direct).items()} == {
        t: sorted(map(str, rest["columns"])) for t, rest in found.items()
    }
    assert sum(len(table["check"]) for table in found.values()) == sum(
        type(constraint).__name__ == "CheckConstraint"
        for t in Base.metadata.sorted_tables
        for constraint in t.constraints
    )
    migrated.dispose()
    direct.dispose()


def test_migrations_keep_the_data_down_and_up(url, clock, pack):
    """What a study of the first version holds is there after a step back to it and forth again, to the last row.

    But for what that version does not know: a study's newer settings and salt, and when pictures were served.
    """
    app = make_app(url, clock)
    open_study(app, pack, small_spec(target=2))
    assert simulate(app, "study", {"sr3": 0.5, "esrgan (x4)": 0.5}, 0, clock, subjects=2) == 2
    database, before = app.extensions["study_database"], of_the_first(everything(url))
    database.engine.dispose()
    with database.migrating() as connection:
        command.downgrade(migrations(connection), "0001")
        assert "group" not in {column["name"] for column in inspect(connection).get_columns("stimulus")}
    with database.migrating() as connection:
        upgrade(connection)
    assert of_the_first(everything(url)) == before and len(before["response"]) == 16


def of_the_first(rows):
    """Rows without the columns whose values the first version did not have."""
    newer = {("study", "config_toml"), ("study", "salt"), *(("trial", f"{place}_served_at") for place in PLACES)}
    columns = {table.name: [column.name for column in table.columns] for table in Base.metadata.sorted_tables}
    return {
        table: [[v for v, name in zip(row, columns[table], strict=True) if (table, name) not in newer] for row in found]
        for table, found in rows.items()
        if table != "audit"
    }


def test_a_second_process_finds_the_tables_made(url):
    for _ in range(2):
        database = Database(url)
        with database.read() as db:
            assert db.scalar(text("SELECT count(*) FROM study")) == 0
        database.engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE study SET state = 'open'",
        "UPDATE stimulus SET model = ''",
        "UPDATE plan_trial SET real_side = 'up'",
        "UPDATE plan_trial SET idx = 0",
        "UPDATE plan_trial SET stimulus_id = 9999",
        "DELETE FROM plan_slot WHERE id IN (SELECT slot_id FROM session)",
        "UPDATE session SET slot_id = (SELECT min(slot_id) FROM session)",
        "UPDATE session SET state = 'finished'",
        "UPDATE session SET completion_code = 'abc'",
        "UPDATE trial SET started_at = 1",
        "UPDATE trial SET showings = 1",
        "UPDATE trial SET plan_trial_id = 1",
        "UPDATE stimulus SET other_png = real_png || real_png",
    ],
)
def test_constraints_hold_without_the_service(url, clock, pack, statement):
    app = make_app(url, clock)
    open_study(app, pack, small_spec())
    for seed in range(2):
        bot = Bot(app, "study", clock, random.Random(seed))
        bot.enter()
        assert bot.start().status_code == 201
    database = app.extensions["study_database"]
    with pytest.raises(IntegrityError), database.write() as db:
        db.execute(text(statement))
    database.engine.dispose()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"DATABASE_URL": "nonsense"}, "write sqlite:///FILE"),
        ({"DATABASE_URL": "mysql://user:secret@host/name"}, "write sqlite:///FILE"),
        ({"DATABASE_URL": "sqlite://"}, "write sqlite:///FILE"),
        ({"DATABASE_URL": "postgresql+nothing://host/name"}, "write sqlite:///FILE"),
        ({"DATABASE_URL": "postgresql+pg8000://host/name"}, "its driver is missing"),
        ({"COOKIE_SECURE": "False"}, "write true, false"),
        ({"REQUESTS_PER_SECOND": "none"}, "write true, false"),
    ],
)
def test_a_bad_setting_is_one_line(tmp_path, setting, message):
    with pytest.raises(click.ClickException, match=message) as error:
        create_app({"DATABASE_URL": f"sqlite:///{tmp_path / 's.sqlite'}", "SECRET_KEY": "x", **setting})
    assert "\n" not in error.value.message and "secret" not in error.value.message


def from_the_future(folder):
    database = Database(f"sqlite:///{folder / 'future'}")
    with database.write() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.engine.dispose()
    return database.url


UNUSABLE = {
    "a folder": (lambda folder: f"sqlite:///{folder}", "unable to open"),
    "another file": (lambda folder: f"sqlite:///{__file__}", "not a database"),
    "under a file": (lambda folder: f"sqlite:///{__file__}/s.sqlite", "test_database.py"),
    "from the future": (from_the_future, "another version of the toolkit"),
    "nobody there": (lambda folder: f"postgresql+psycopg://study@/study?host={folder}", "connection"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_database_that_cannot_be_used_is_one_line_and_no_crash(tmp_path, clock, kind):
    make_url, message = UNUSABLE[kind]
    app = make_app(str(make_url(tmp_path)), clock)
    result = app.test_cli_runner().invoke(args=["study", "list"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ") and result.output.count("\n") == 1 and message in result.output
    reply = app.test_client().get("/s/study")
    if kind in ("a folder", "nobody there"):  # which may pass: a disk to be mounted, a server that starts
        assert (reply.status_code, int(reply.headers["Retry-After"])) == (503, 5)
    else:  # what only the researcher can mend is not called busy
        assert reply.status_code == 500 and "Retry-After" not in reply.headers
        assert "not set up correctly" in reply.text and message not in reply.text


def test_a_full_disk_refuses_the_answer_and_loses_none(tmp_path, clock, pack):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    open_study(app, pack, small_spec())
    bot = Bot(app, "study", clock, random.Random(0))
    bot.enter()
    bot.start()
    now = bot.upcoming()
    first, second = now["window"][:2]
    assert bot.answer(first, now["exposure_ms"], "left").status_code == 200
    with app.extensions["study_database"].engine.connect() as connection:  # the only one in the pool
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    noise = [{"seq": i, "type": "x", "t": 0, "detail": "x" * 99} for i in range(90)]
    bulks = [[{**event, "seq": 90 * i + event["seq"]} for event in noise] for i in range(9)]
    assert 503 in [bot.post("/api/events", {"events": bulk}).status_code for bulk in bulks]
    with app.extensions["study_database"].engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert bot.answer(second, now["exposure_ms"], "left").status_code == 200
    assert len(everything(app.config["DATABASE_URL"])["response"]) == 2


def test_free_places_and_abandoned_sessions_are_found_by_their_indices(tmp_path):
    """So that a start costs the same however many places are taken and however many people have come."""
    database = Database(f"sqlite:///{tmp_path / 'study.sqlite'}")
    with database.reading() as db:
        for query, index in ((statements.FREE_SLOT, "ix_plan_slot_free"), (statements.IDLE, "ix_session_active")):
            plan = db.exec_driver_sql(f"EXPLAIN QUERY PLAN {query.compile(db)}", (1,) * len(query.compile(db).params))
            steps = [step for *_, step in plan]
            assert any(index in step for step in steps) and not any("SCAN" in step for step in steps), steps
    database.engine.dispose()
