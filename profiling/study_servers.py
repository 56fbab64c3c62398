"""Servers of a study in processes of their own: the application as the image starts it, and a PostgreSQL cluster.

Tests start them, too. Each listens to this machine alone.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import create_engine, text

ROOT = Path(__file__).parents[1]
SECRET = "0123456789abcdef" * 4
PATIENCE_S = 60


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    """Until somebody listens at the port; an AssertionError with the log where the process ends instead."""
    end = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of CPU that processes have used."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # one that has ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Application:
    """`python -m study_app.deploy` without limits on a port of its own; settings are environment variables."""

    def __init__(self, folder: Path, url: str, python: str = sys.executable, **settings: str) -> None:
        self.folder, self.port, self.python = folder, free_port(), python
        self.log = folder / f"gunicorn_{self.port}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STUDY_", "FLASK_"))}
        limits = {"STUDY_STARTS_PER_HOUR": "null", "STUDY_REQUESTS_PER_SECOND": "null"}
        own = {"PYTHONPATH": str(ROOT), "STUDY_DATABASE_URL": url, "STUDY_SECRET_KEY": SECRET}
        chosen = kept | limits | own | {"STUDY_BIND": f"127.0.0.1:{self.port}"} | settings
        self.environment = {name: value for name, value in chosen.items() if value}
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> "Application":
        """Until it answers."""
        command = [self.python, "-m", "study_app.deploy"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self.port, self.process, self.log)
        return self

    def workers(self) -> list[int]:
        """gunicorn's processes that answer."""
        return children(self.process.pid)

    def kill(self, pid: int) -> None:
        """kill -9."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it and its workers at once."""
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Cluster:
    """A PostgreSQL server on a Unix socket in a folder of its own, run by another user where we are root."""

    def __init__(self, durable: bool) -> None:
        self.binaries = self._binaries()
        self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        made = subprocess.run([*self.user, "mktemp", "-d"], check=True, capture_output=True, text=True)
        self.root = Path(made.stdout.strip())
        fsync = "on" if durable else "off"
        self.options = f"-c listen_addresses='' -c fsync={fsync} -c unix_socket_directories={self.root}"
        self._run(self.binaries / "initdb", "-D", self.root / "data", "-A", "trust", "-U", "study", "--no-sync")
        self.start()

    @staticmethod
    def found() -> Path | None:
        """The newest server's programs, where any is installed."""
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
        other = shutil.which("initdb")
        return folders[0].parent if folders else Path(other).parent if other else None

    def _binaries(self) -> Path:
        found = self.found()
        if found is None:
            raise FileNotFoundError("no PostgreSQL server is installed (initdb)")
        return found

    def url(self, name: str = "postgres") -> str:
        """Of one of its databases."""
        return f"postgresql+psycopg://study@/{name}?host={self.root}"

    def create(self, name: str) -> str:
        """The URL of a new database."""
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name)

    def start(self) -> None:
        """Until it answers."""
        self._control("start", "-o", self.options, "-l", self.root / "log")

    def stop(self, mode: str = "immediate") -> None:
        """`immediate` is a crash: what was not written to its log is lost."""
        self._control("stop", "-m", mode)

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self.stop()
        self._run("rm", "-rf", self.root)

    def processes(self) -> list[int]:
        """Its own and those of its connections."""
        leader = int((self.root / "data" / "postmaster.pid").read_text().splitlines()[0])
        return [leader, *children(leader)]

    def _control(self, verb: str, *options: object) -> None:
        self._run(self.binaries / "pg_ctl", "-D", self.root / "data", "-w", verb, *options)

    def _run(self, *command: object) -> None:
        line = [*self.user, *map(str, command)]
        subprocess.run(line, check=True, cwd="/", stdout=subprocess.DEVNULL)
