"""The tables: what migrations make is what the models say, and what must not be cannot be stored."""

import random

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError

from sr3eval.errors import UserError
from study_app.bots import Bot
from study_app.database import Database
from study_app.models import Base
from tests.study_app.small_study import make_app, open_study, small_spec


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


def test_what_is_no_database_is_said():
    for url in ("nonsense", "nosuchthing://x/y"):
        with pytest.raises(UserError, match="not a database URL"):
            Database(url)
