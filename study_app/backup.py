"""Copies of the whole database while people answer, and back: SQLite's backup API, PostgreSQL's pg_dump and pg_restore.

A copy is one moment of the database: everything that was acknowledged before it, nothing by halves.
"""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, MetaData, create_engine, insert, inspect, text
from sqlalchemy.exc import DatabaseError

from sr3eval.errors import UserError
from sr3eval.files import TEMPORARY
from study_app.admin import Admin
from study_app.models import Audit

FOREIGN = "no backup of a study's database"


def backup(admin: Admin, out: Path) -> None:
    """Write a copy of the database to the new file `out`, or raise UserError and leave none.

    That it was made is in the audit log, unless the database cannot be written to: a full disk is a reason for a copy.
    """
    source = admin.database.url
    if source.get_backend_name() == "sqlite" and not Path(str(source.database)).is_file():
        raise UserError(f"{source.database}: there is no such database")
    with _new_file(out) as temporary:
        if source.get_backend_name() == "sqlite":
            _copy(Path(str(source.database)), temporary)
            _check(temporary, out)
        else:
            _run(source, "pg_dump", "--format=custom", f"--file={temporary}")
    _log(admin, "backup", out)


def restore(admin: Admin, source: Path) -> None:
    """Fill the empty or missing database from a copy, and say so in its audit log.

    Raises UserError, and then no study has changed.
    """
    target = admin.database.url
    if not source.is_file():
        raise UserError(f"{source}: there is no such file")
    if target.get_backend_name() == "sqlite":
        _restore_file(Path(str(target.database)), source)
    else:
        _restore_server(target, source)
    _log(admin, "restore", source)


def _log(admin: Admin, action: str, copy: Path) -> None:
    """In the tables as they are, if there is such a one: another version of the application may serve them."""
    row = {"at": admin.clock(), "actor": admin.actor, "action": action, "study": "", "detail": copy.name}
    engine = create_engine(admin.database.url)
    with suppress(DatabaseError), engine.begin() as connection:
        connection.execute(insert(Audit), row)
    engine.dispose()


def _restore_file(target: Path, source: Path) -> None:
    """Into the file itself, under SQLite's lock: a server that has it open sees all of it or nothing."""
    _check(source, source)
    is_new = not target.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not is_new:
            _refuse_studies(URL.create("sqlite", database=str(target)))
        _copy(source, target)
    except (OSError, sqlite3.Error) as error:
        if is_new:
            target.unlink(missing_ok=True)
        raise UserError(f"{target}: {error}") from None


def _restore_server(target: URL, source: Path) -> None:
    if "TABLE public study " not in _run(target, "pg_restore", "--list", str(source)):
        raise UserError(f"{source}: {FOREIGN}")
    _refuse_studies(target)
    engine = create_engine(target)
    with engine.begin() as connection:  # a server that was started on it has made the tables
        tables = MetaData()
        tables.reflect(connection)
        tables.drop_all(connection)
    engine.dispose()
    _run(target, "pg_restore", "--single-transaction", "--exit-on-error", "--no-owner", str(source))


def _refuse_studies(target: URL) -> None:
    """Raise UserError where there is anything that a copy would replace."""
    engine = create_engine(target)
    try:
        with engine.connect() as connection:
            if inspect(connection).has_table("study") and connection.scalar(text("SELECT count(*) FROM study")):
                raise UserError(f"{target.database}: already holds studies; restore into an empty database")
    except DatabaseError as error:
        raise UserError(f"{target.database}: {str(error.orig).splitlines()[0]}") from None
    finally:
        engine.dispose()


@contextmanager
def _new_file(out: Path) -> Iterator[Path]:
    """A file beside `out` that becomes it once it is whole and on the disk; never in place of another."""
    if out.exists():
        raise UserError(f"{out} already exists")
    temporary = out.with_name(f"{TEMPORARY}{os.getpid()}-{out.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o600)
        os.link(temporary, out)
    except FileExistsError:
        raise UserError(f"{out} already exists") from None
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{out}: {error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _copy(source: Path, target: Path) -> None:
    """In one go, of one moment: in pieces, SQLite begins anew with every answer that comes meanwhile."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target, timeout=60)) as new:
        old.backup(new)


def _check(path: Path, name: Path) -> None:
    """Raise UserError where a file is no sound SQLite database of studies."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as connection:
            found = connection.execute("PRAGMA quick_check").fetchone()[0]
            connection.execute("SELECT count(*) FROM study JOIN alembic_version")
    except sqlite3.Error as error:
        raise UserError(f"{name}: {FOREIGN} ({error})") from None
    if found != "ok":
        raise UserError(f"{name} is damaged: {found.splitlines()[0]}")


def _run(database: URL, tool: str, *arguments: str) -> str:
    """What a tool of PostgreSQL prints; it connects to `database`, with a password that no list of processes shows."""
    address = database.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environment = {**os.environ, "PGPASSWORD": database.password} if database.password else {**os.environ}
    connect = [] if "--list" in arguments else [f"--dbname={address}"]
    try:
        done = subprocess.run([tool, *connect, *arguments], env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(f"{tool} is missing: install PostgreSQL's client programs (postgresql-client)") from None
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or [f"{tool} failed"])[-1])
    return done.stdout
