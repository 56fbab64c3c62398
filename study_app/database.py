"""The database: SQLite in one file by default, PostgreSQL by URL; one short transaction a call."""

import contextlib
import functools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from sr3eval.errors import UserError
from study_app.turns import Turns

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_KEY = 0x53523332  # of PostgreSQL's advisory lock while the tables are made: "SR32"
CONNECTIONS = 16  # that are kept; as many threads may be in a transaction
PURGE_ATTEMPTS, PURGE_WAIT_S = 5, 0.5  # how often SQLite's log is tried to be emptied, and how long each time
# secure_delete: what is deleted is overwritten with zeros.
PRAGMAS = ("journal_mode = WAL", "busy_timeout = 5000", "secure_delete = ON")


class Database:
    """Transactions on `url`. The tables are made or brought up to date at the first one.

    `durable`: what was acknowledged survives a power cut (some 300 commits/s on SQLite). Without it
    simulations are faster.
    """

    def __init__(self, url: str | URL, durable: bool = True) -> None:
        self.durable = durable
        self.url = checked(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._turns = Turns(Path(str(self.url.database))) if self.is_sqlite else None

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads."""
        with Session(self.engine) as session, session.begin():
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that writes: committed as a whole at the end, or nothing of it where an exception comes."""
        engine = self._writing
        with self._turn(), Session(engine) as session, session.begin():
            yield session

    @contextlib.contextmanager
    def statements(self, durable: bool = True) -> Iterator[Connection]:
        """As `write`, for statements alone.

        Without `durable`, SQLite does not wait for the disk: a power cut may undo it, until a durable one comes after
        it. PostgreSQL always waits: what it had not written, its own crash would undo.
        """
        engine = self._writing if durable else self._hurried
        with self._turn(), engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """For statements that read, each of them a transaction of its own."""
        with self._reading.connect() as connection:
            yield connection

    def _turn(self) -> contextlib.AbstractContextManager[None]:
        """SQLite has one writer; PostgreSQL sees to itself."""
        return self._turns.take() if self._turns else contextlib.nullcontext()

    def purge(self) -> None:
        """Leave no byte of what was deleted: SQLite's log still has the pages as they were. Readers are waited for.

        PostgreSQL gives up deleted rows by itself (autovacuum), and keeps its log as its administrator says.
        """
        if self.engine.dialect.name == "sqlite" and not any(self._empty_log() for _ in range(PURGE_ATTEMPTS)):
            raise UserError(
                f"{self.url.database}: SQLite's log keeps what is deleted, because something reads the database; "
                "try again when no export or backup is running"
            )

    def _empty_log(self) -> bool:
        """Whether it could be done; who writes waits no longer than an attempt."""
        file = str(self.url.database)
        with self._turn(), contextlib.closing(sqlite3.connect(file, timeout=PURGE_WAIT_S)) as connection:
            is_busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not is_busy

    @functools.cached_property
    def engine(self) -> Engine:
        """The connections, once the tables are what this version needs."""
        engine = self._connect()
        try:
            with self.migrating() as connection:
                upgrade(connection)
        except OperationalError:  # it may pass
            raise
        except DatabaseError as error:
            raise UserError(f"{self.url.database}: {error.orig}") from None
        return engine

    @contextlib.contextmanager
    def migrating(self) -> Iterator[Connection]:
        """A transaction that puts tables in others' places, meanwhile without SQLite's checks of foreign keys."""
        engine = self._connect(checks=False)
        try:
            with _writing(engine).begin() as connection:
                yield connection
        finally:
            engine.dispose()

    @functools.cached_property
    def _writing(self) -> Engine:
        return _writing(self.engine)

    @functools.cached_property
    def _reading(self) -> Engine:
        if self.is_sqlite:
            return self.engine.execution_options(study_begins=False)
        return self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @functools.cached_property
    def _hurried(self) -> Engine:
        """Has connections of its own: whether commits wait for the disk is said to a connection."""
        if not (self.durable and self.is_sqlite):
            return self._writing
        engine = self._connect(synchronous="NORMAL")
        event.listen(self.engine, "engine_disposed", lambda _: engine.dispose())
        return _writing(engine)

    def _connect(self, checks: bool = True, synchronous: str = "FULL") -> Engine:
        """`checks`: of foreign keys."""
        if not self.is_sqlite:
            return create_engine(self.url, pool_pre_ping=True, pool_size=CONNECTIONS)
        folder = Path(str(self.url.database)).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: {error.strerror}") from None
        engine = create_engine(self.url, pool_size=CONNECTIONS)
        synchronous = synchronous if self.durable else "OFF"
        event.listen(engine, "connect", functools.partial(_prepare, checks, synchronous))
        event.listen(engine, "begin", _begin)
        return engine


def checked(url: str | URL) -> URL:
    """The URL of a kind of database that the study runs on, with its driver, or UserError."""
    try:
        parsed = make_url(url)
        dialect = parsed.get_dialect()
        if dialect.name not in ("sqlite", "postgresql"):
            raise ArgumentError
        if dialect.name == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise ArgumentError  # each connection would have a database of its own, and lose it
        dialect.import_dbapi()
    except (ArgumentError, NoSuchModuleError, ValueError):
        # The URL is not repeated: there may be a password in it.
        raise UserError("DATABASE_URL: write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME") from None
    except ModuleNotFoundError:
        remedy = "write postgresql+psycopg://… and pip install 'sr3eval[postgresql]'"
        raise UserError(f"{parsed.drivername}: its driver is missing; {remedy}") from None
    return parsed


def upgrade(connection: Connection) -> None:
    """Bring the tables up to date within the connection's transaction; others wait for it."""
    from alembic import command
    from alembic.util import CommandError

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
    try:
        command.upgrade(migrations(connection), "head")
    except CommandError as error:
        raise UserError(f"the database is of another version of the toolkit ({error})") from None


def migrations(connection: Connection) -> "Config":
    """Where the migrations are, for Alembic's commands on this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _prepare(checks: bool, synchronous: str, connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin says so, not before the first write
    for pragma in (*PRAGMAS, f"foreign_keys = {checks:d}", f"synchronous = {synchronous}"):
        connection.execute(f"PRAGMA {pragma}")


def _writing(engine: Engine) -> Engine:
    return engine.execution_options(study_writes=True)


def _begin(connection: Connection) -> None:
    """A writer takes the lock at once: a reader that becomes a writer later could not wait for it."""
    options = connection.get_execution_options()
    if options.get("study_begins", True):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("study_writes") else "BEGIN")
