"""Fixtures: a pack, a clock, an empty database of each kind."""

import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from study_app.clock import ManualClock
from tests.study_app.small_study import write_pack


@pytest.fixture(scope="session")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """The URL of a temporary PostgreSQL cluster on a Unix socket, run by another user where we are root."""
    folders = [Path(p) for p in sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
    found = next((f for f in folders if (f / "initdb").exists()), None) or shutil.which("initdb")
    if found is None:
        pytest.skip("no PostgreSQL server is installed (initdb)")
    pytest.importorskip("psycopg")
    binaries = Path(found) if Path(found).is_dir() else Path(found).parent
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    root = Path(subprocess.run([*as_user, "mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    run = lambda *line: subprocess.run([*as_user, *line], check=True, cwd="/", stdout=subprocess.DEVNULL)  # noqa: E731
    run(binaries / "initdb", "-D", root / "data", "-A", "trust", "-U", "study", "--no-sync")
    options = f"-c listen_addresses='' -c fsync=off -c unix_socket_directories='{root}'"
    run(binaries / "pg_ctl", "-D", root / "data", "-w", "-o", options, "-l", root / "log", "start")
    yield f"postgresql+psycopg://study@/{{}}?host={root}"
    run(binaries / "pg_ctl", "-D", root / "data", "-w", "-m", "immediate", "stop")
    run("rm", "-rf", root)


def new_database(request, folder):
    """The URL of an empty database of the kind that the fixture's parameter names."""
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'study.sqlite'}"
    server = request.getfixturevalue("postgres")
    name = f"t{uuid.uuid4().hex}"
    engine = create_engine(server.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.format(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """An empty database of each kind."""
    return new_database(request, tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def shared_url(request, tmp_path_factory):
    """One for all tests of a module that leave it as it was."""
    return new_database(request, tmp_path_factory.mktemp("shared"))
