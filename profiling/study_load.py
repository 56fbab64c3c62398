"""What a study costs with many subjects at once, and how long they wait.

    python profiling/study_load.py [--database sqlite] [--bots 200] [--seconds 60] [--pace 6] [--places 0]
    python profiling/study_load.py --bots 100 --search      # how many until the 99th percentile passes 150 ms

The server is the image's own: its start script, gunicorn with 2 processes of 8 threads, a new SQLite file or a new
PostgreSQL cluster, which both wait for the disk. The bots are this process: each takes Task-1 over HTTP with a
connection of its own, fetches every picture, and answers every `pace` seconds; first all of them start within 5 s.
Reported are the server's CPU time a start, a request and a trial (the database's processes apart), how long starts and
answers take, and what bounds them on this machine: the time of one commit to its disk, and the load average, in the
same run. Every answer that was acknowledged is looked up at the end. All stays on this machine, and ends after
`seconds`.
"""

import contextlib
import dataclasses
import functools
import os
import random
import re
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
from sqlalchemy import func, select
from study_of_noise import grainy, open_study
from study_servers import Application, Cluster, cpu_s

sys.path.insert(0, str(Path(__file__).parents[1]))

from study_app import create_app
from study_app.bots import HttpBot
from study_app.browser import Browser
from study_app.models import Response, Trial
from study_app.spec import Spec

START_S = 5  # within which all start
LIMIT_MS = 150  # of the 99th percentile of an answer
MOST = 1600  # bots of one process, which by then uses half a core itself
KINDS = {
    "start": r"/start$",
    "next": r"/api/next$",
    "showing": r"/api/trials/[^/]+/start$",
    "answer": r"/response$",
    "pictures": r"/i/[^/]+$",
}


@dataclasses.dataclass
class Times:
    """Seconds that replies took, by what was asked for, and how many of each status there were."""

    seconds: dict[str, list[float]] = dataclasses.field(default_factory=lambda: {kind: [] for kind in KINDS})
    statuses: Counter[int] = dataclasses.field(default_factory=Counter)
    requests: int = 0

    def record(self, path: str, seconds: float, status: int) -> None:
        self.requests += 1
        self.statuses[status] += 1
        kind = next((kind for kind in reversed(KINDS) if re.search(KINDS[kind], path)), None)
        if kind is not None:
            self.seconds[kind].append(seconds)

    def line(self, kind: str) -> str:
        """Percentiles in ms."""
        ms = 1000 * np.array(self.seconds[kind] or [np.nan])
        p50, p99 = np.percentile(ms, (50, 99))
        return f"{kind:8} {len(self.seconds[kind]):6}  p50 {p50:6.1f}  p99 {p99:7.1f}  max {ms.max():7.1f} ms"

    def p99_ms(self, kind: str) -> float:
        return 1000 * float(np.percentile(self.seconds[kind] or [np.nan], 99))


class PacedBot(HttpBot):
    """Ends at a given time; one trial takes `pace_s` seconds."""

    end = float("inf")

    def stays(self) -> bool:
        return time.monotonic() < self.end

    def start(self) -> object:
        reply = super().start()
        assert reply.status_code == 201, reply.text
        return reply


def task_1(url: str, places: int, side: int, pace: float) -> int:
    """A study of Task-1 with so many places, running; its pictures' bytes."""
    images = 60 if places <= 1000 else 4  # a plan of 10,000 places of 60 trials takes minutes to lay down
    app = create_app({"DATABASE_URL": url, "SECRET_KEY": "load", "DURABLE": False})
    none = {"practice": 0, "catch": 0, "catch_pass": 0, "breaks": 0, "fixation_ms": 0}
    exposure = min(3000, int(500 * pace)) or 1
    spec = Spec("Load", task=1, exposures_ms=(exposure,), images=images, per_subject=images // 2, target=places, **none)
    size = open_study(app, "load", spec, ["model"], side, grainy)
    app.extensions["study_database"].engine.dispose()
    return size


def commit_floor_ms(folder: str) -> np.ndarray:
    """What one commit to this disk takes, as SQLite does it for the study (WAL, synchronous = FULL)."""
    with contextlib.closing(sqlite3.connect(f"{folder}/floor.sqlite", isolation_level=None)) as connection:
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "CREATE TABLE t (x)"):
            connection.execute(statement)
        times = []
        for number in range(300):
            begin = time.perf_counter()
            connection.execute("INSERT INTO t VALUES (?)", (number,))
            times.append(1000 * (time.perf_counter() - begin))
    return np.array(times)


def every(bots: list[PacedBot], within_s: float, do: Callable[[PacedBot], object]) -> float:
    """Let each bot do something in a thread of its own, evenly over a time; returns how long it took."""
    begin = time.monotonic()

    def wait_and_do(number: int) -> None:
        time.sleep(max(0.0, begin + within_s * number / len(bots) - time.monotonic()))
        do(bots[number])

    with ThreadPoolExecutor(len(bots)) as pool:
        list(pool.map(wait_and_do, range(len(bots))))
    return time.monotonic() - begin


def enter_and_start(bot: PacedBot) -> None:
    bot.enter()
    bot.start()


@dataclasses.dataclass
class Load:
    """One run with so many bots."""

    server: Application
    database_pids: Callable[[], list[int]]
    times: Times = dataclasses.field(default_factory=Times)

    def cpu(self) -> np.ndarray:
        """Of the server's processes and of the database's, in seconds."""
        return np.array([cpu_s(self.server.workers()), cpu_s(self.database_pids())])

    def run(self, count: int, seconds: float, pace: float) -> list[PacedBot]:
        lock = threading.Lock()

        def record(path: str, taken: float, status: int) -> None:
            with lock:
                self.times.record(path, taken, status)

        bots = [
            PacedBot(Browser(self.server.url, record=record), "load", random.Random(seed), pace_s=pace)
            for seed in range(count)
        ]
        before, burst = self.cpu(), every(bots, START_S, enter_and_start)
        self.say_cpu(f"{count} starts, each with its first page, in {burst:.1f} s", self.cpu() - before, count)
        click.echo(f"  {self.times.line('start')}")
        if seconds:
            self.answer(bots, seconds, pace)
        return bots

    def answer(self, bots: list[PacedBot], seconds: float, pace: float) -> None:
        before, requests, own = self.cpu(), self.times.requests, time.process_time()
        PacedBot.end = time.monotonic() + seconds
        taken = every(bots, pace, lambda bot: bot.take(lambda trial: bot.rng.choice(("left", "right"))))
        used, requests = self.cpu() - before, self.times.requests - requests
        trials = sum(len(bot.acknowledged) for bot in bots)
        each = requests / trials
        click.echo(f"{trials} trials of {each:.1f} requests each in {taken:.0f} s; {pace:g} s a trial")
        self.say_cpu("a trial, with pictures", used, trials)
        self.say_cpu("a request", used, requests)
        for kind in KINDS:
            click.echo(f"  {self.times.line(kind)}")
        busy = (time.process_time() - own) / taken
        click.echo(f"  the bots themselves used {100 * busy:.0f} % of a core; statuses {dict(self.times.statuses)}")

    def say_cpu(self, name: str, used: np.ndarray, count: int) -> None:
        own, database = 1000 * used / count
        click.echo(f"CPU {own:.2f} ms (database's processes: {database:.2f} ms) {name}")


def check(url: str, bots: list[PacedBot]) -> None:
    """Raise ClickException where an answer that was acknowledged is not stored, or anything is twice."""
    app = create_app({"DATABASE_URL": url, "SECRET_KEY": "load"})
    with app.extensions["study_database"].read() as db:
        stored = dict(db.execute(select(Trial.token, Response.choice).join(Trial.response)).all())
        rows = db.scalar(select(func.count(Response.id)))
    app.extensions["study_database"].engine.dispose()
    acknowledged = {token: side for bot in bots for token, side in bot.acknowledged.items()}
    if not acknowledged.items() <= stored.items() or rows != len(stored):
        raise click.ClickException(f"{len(acknowledged)} answers acknowledged, {rows} stored, and not the same")
    click.echo(f"{len(acknowledged)} answers acknowledged: all stored, none twice")


@contextlib.contextmanager
def database(kind: str, folder: str) -> Iterator[tuple[str, Callable[[], list[int]]]]:
    """The URL of a new database, and what lists its processes."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/study.sqlite", list
        return
    cluster = Cluster(durable=True)
    try:
        yield cluster.create("load"), cluster.processes
    finally:
        cluster.remove()


def measure(kind: str, bots: int, seconds: float, pace: float, places: int, side: int, settings: dict) -> float:
    """One run; the 99th percentile of an answer's waiting time, in ms."""
    with tempfile.TemporaryDirectory() as folder, database(kind, folder) as (url, pids):
        size = task_1(url, places or bots + bots % 2, side, pace)
        floor = commit_floor_ms(folder)
        click.echo(f"\n{kind}, {bots} bots, {places or bots} places, pictures of {side} pixels, {size} bytes")
        click.echo(f"a commit to this disk: p50 {np.median(floor):.2f}, p99 {np.percentile(floor, 99):.2f} ms")
        click.echo(f"load average before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
        server = Application(Path(folder), url, **settings).start()
        try:
            load = Load(server, pids)
            done = load.run(bots, seconds, pace)
        finally:
            server.stop()
        click.echo(f"load average after: {os.getloadavg()[0]:.2f}")
        check(url, done)
    return load.times.p99_ms("answer")


def largest(passes: Callable[[int], bool], first: int, most: int) -> int:
    """The greatest number up to `most` that passes, to an eighth; 0 where none was found.

    From `first` on it is doubled until one does not pass, then looked for in between.
    """
    good, bad = 0, first
    while bad <= most and passes(bad):
        good, bad = bad, 2 * bad
    while bad <= most and bad - good > max(1, bad // 8):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if passes(middle) else (good, middle)
    return good


@click.command()
@click.option("--database", "kind", type=click.Choice(["sqlite", "postgresql"]), default="sqlite", show_default=True)
@click.option("--bots", type=click.IntRange(1, MOST), default=200, show_default=True)
@click.option(
    "--search", is_flag=True, help=f"From so many bots on, how many until an answer's p99 passes {LIMIT_MS} ms."
)
@click.option("--seconds", type=click.FloatRange(0), default=60, show_default=True, help="Of answers; 0: starts alone.")
@click.option("--pace", type=click.FloatRange(0), default=6, show_default=True, help="Seconds a trial.")
@click.option("--places", type=click.IntRange(0), default=0, show_default=True, help="Of the study; 0: one a bot.")
@click.option("--side", default=256, show_default=True, help="Of a picture, in pixels.")
@click.option("--workers", default=2, show_default=True)
@click.option("--threads", default=8, show_default=True)
def main(
    kind: str, bots: int, search: bool, seconds: float, pace: float, places: int, side: int, workers: int, threads: int
) -> None:
    """What a study costs with many subjects at once, and how long they wait."""
    settings = {"STUDY_WORKERS": str(workers), "STUDY_THREADS": str(threads)}
    run = functools.partial(measure, kind, seconds=seconds, pace=pace, places=places, side=side, settings=settings)
    if not search:
        run(bots)
        return
    found = largest(lambda count: run(count) <= LIMIT_MS, bots, MOST)
    click.echo(
        f"\nup to some {found} bots an answer's 99th percentile stays within {LIMIT_MS} ms (looked for up to {MOST})"
    )


if __name__ == "__main__":
    main()
