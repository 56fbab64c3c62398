"""Does a study lose or double an answer when its servers are killed, restarted or out of disk?

    python profiling/study_faults.py --fault kill --bots 100 --every 5 --trials 60          # a minute and a half
    python profiling/study_faults.py --fault restart --database postgresql
    python profiling/study_faults.py --fault disk
    python profiling/study_faults.py --fault pages

Bots take a whole study over HTTP from the image's own start script while, again and again, a worker of gunicorn is
killed (kill -9), PostgreSQL is stopped as by a crash and started, or the disk is full for a while (a small one of
memory, in a namespace of its own: util-linux's `unshare`). Or SQLite may not grow until somebody was refused
(`max_page_count`, which each connection is told, so that this server is threads of this process). They ask again, as a
browser does. In the end every answer that was acknowledged must be stored, none twice, every place must be taken once,
and every picture seen equally often.
"""

import contextlib
import itertools
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
from flask import Response as Reply
from sqlalchemy import Connection, Engine, event, func, select
from study_of_noise import open_study
from study_servers import Application, Cluster
from werkzeug.serving import WSGIRequestHandler, make_server

sys.path.insert(0, str(Path(__file__).parents[1]))

from study_app import create_app
from study_app.bots import HttpBot
from study_app.browser import Browser
from study_app.models import PlanSlot, PlanTrial, Response, Session, Stimulus, Trial
from study_app.spec import Spec

MODELS = ("one", "other")
DISK = "4m"
PAUSE_S = 0.5  # how long PostgreSQL is away, or the disk full


class Impatient(HttpBot):
    """A bot that decides at once."""

    def thinking_ms(self) -> float:
        return 5.0


def study_of(bots: int, trials: int) -> Spec:
    """Two models, half of the bots each; a bot sees half of the images."""
    none = {"practice": 0, "catch": 0, "catch_pass": 0, "breaks": 0, "fixation_ms": 0}
    return Spec("Faults", 2, images=2 * trials, per_subject=trials, target=bots // 2, exposures_ms=(260,), **none)


@dataclass(frozen=True)
class Outcome:
    """What became of a study; `balanced`: each place once, and each picture as often as the others."""

    faults: int
    refused: int  # requests that the server said it could not serve now
    acknowledged: int
    stored: int
    lost: int
    doubled: int
    finished: int
    balanced: bool

    @property
    def is_sound(self) -> bool:
        return self.balanced and not self.lost and not self.doubled


def outcome(url: str, spec: Spec, acknowledged: dict[str, str], faults: int, refused: int) -> Outcome:
    app = create_app({"DATABASE_URL": url, "SECRET_KEY": "faults"})
    with app.extensions["study_database"].read() as db:
        stored = db.execute(select(Trial.token, Response.choice).join(Trial.response)).all()
        places = db.scalars(select(Session.slot_id).where(Session.state == "finished")).all()
        finished = select(Stimulus.model, Stimulus.image_id, PlanTrial.real_side, func.count(Response.id))
        finished = finished.select_from(Response).join(Response.trial).join(Trial.planned).join(PlanTrial.stimulus)
        finished = finished.join(Session, Session.id == Trial.session_id).where(Session.state == "finished")
        seen = db.execute(finished.group_by(Stimulus.model, Stimulus.image_id, PlanTrial.real_side)).all()
        total = db.scalar(select(func.count(PlanSlot.id))) or 0
    app.extensions["study_database"].engine.dispose()
    views, sides = Counter(), Counter()
    for model, image, side, count in seen:
        views[model, image] += count
        sides[model, side] += count
    known = dict(stored)
    return Outcome(
        faults,
        refused,
        len(acknowledged),
        len(stored),
        sum(known.get(token) != side for token, side in acknowledged.items()),
        len(stored) - len(known),
        len(places),
        len(places) == len(set(places)) == total
        and set(views.values()) == {spec.target // 2}
        and len(views) == len(MODELS) * spec.images
        and len(set(sides.values())) == 1,
    )


def take(bot: Impatient) -> None:
    """The whole study."""
    bot.enter()
    reply = bot.start()
    assert reply.status_code in (200, 201), reply.text  # 200: the reply to the first request was lost
    assert bot.take(lambda trial: bot.rng.choice(("left", "right")))
    bot.browser.close()


def endure(url: str, bots: int, every_s: float, pace_s: float, strike: Callable[[], None]) -> tuple:
    """Let bots take the study while `strike` strikes; what was acknowledged, how often it struck, and the 503s."""
    refused = itertools.count()

    def record(path: str, seconds: float, status: int) -> None:
        if status == 503:
            next(refused)

    people = [
        Impatient(Browser(url, patience_s=60, record=record), "faults", random.Random(seed), pace_s=pace_s)
        for seed in range(bots)
    ]
    over, strikes = threading.Event(), itertools.count()

    def disturb() -> None:
        while not over.wait(every_s):
            strike()
            next(strikes)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        with ThreadPoolExecutor(bots) as pool:
            list(pool.map(take, people))
    finally:
        over.set()
        disturber.join()
    acknowledged = {token: side for bot in people for token, side in bot.acknowledged.items()}
    return acknowledged, next(strikes), next(refused)


def kill_worker(server: Application) -> Callable[[], None]:
    """kill -9 of one worker, in turn."""
    turn = itertools.count()

    def strike() -> None:
        workers = server.workers()
        if workers:
            server.kill(workers[next(turn) % len(workers)])

    return strike


def restart(cluster: Cluster) -> Callable[[], None]:
    """PostgreSQL crashes, and is away for a moment."""

    def strike() -> None:
        cluster.stop("immediate")
        threading.Event().wait(PAUSE_S)
        cluster.start()

    return strike


def fill(disk: Path) -> Callable[[], None]:
    """Not a byte is left for a moment."""

    def strike() -> None:
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            for size in (4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size):
                        pass
        threading.Event().wait(PAUSE_S)
        filler.unlink()

    return strike


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Nothing."""


class Limited:
    """The study in threads of this process; its connections to SQLite may use so many pages."""

    ENDLESS = 1 << 30

    def __init__(self, file: Path) -> None:
        self.file, self.pages, self.refused = file, self.ENDLESS, threading.Event()
        limits = {"STARTS_PER_HOUR": None, "REQUESTS_PER_SECOND": None}
        app = create_app({"DATABASE_URL": f"sqlite:///{file}", "SECRET_KEY": "faults", **limits})
        app.after_request(self._look)
        event.listen(Engine, "begin", self._limit)
        self.server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self.server.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def strike(self) -> None:
        """No page more, until somebody was refused for it."""
        self.refused.clear()
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            self.pages = connection.execute("PRAGMA page_count").fetchone()[0]
        self.refused.wait(10 * PAUSE_S)
        self.pages = self.ENDLESS

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        event.remove(Engine, "begin", self._limit)

    def _limit(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {self.pages}")

    def _look(self, response: Reply) -> Reply:
        if response.status_code == 503:
            assert response.get_json()["error"] == "busy" and response.headers["Retry-After"], response.get_data()
            self.refused.set()
        return response


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of `DISK` bytes in memory, that a namespace holds which a sleeping process keeps."""
    (folder / "disk").mkdir()
    mount = f"mount -t tmpfs -o size={DISK},mode=777 tmpfs {folder / 'disk'} && echo ready && exec sleep 3600"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    keeper = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert keeper.stdout is not None and keeper.stdout.readline() == "ready\n", "unshare or mount is not allowed"
        yield Path(f"/proc/{keeper.pid}/root{folder}/disk")
    finally:
        keeper.kill()
        keeper.wait()


def suffer(fault: str, kind: str, bots: int, trials: int, every_s: float, pace_s: float) -> Outcome:
    """One study with one kind of fault."""
    spec = study_of(bots, trials)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder / 'study.sqlite'}"
        if kind == "postgresql":
            cluster = Cluster(durable=False)  # it is the server that crashes, not the machine
            stack.callback(cluster.remove)
            url = cluster.create("faults")
        elif fault == "disk":
            disk = stack.enter_context(small_disk(folder))
            url = f"sqlite:///{disk / 'study.sqlite'}"
        app = create_app({"DATABASE_URL": url, "SECRET_KEY": "faults"})
        open_study(app, "faults", spec, MODELS, side=16)
        app.extensions["study_database"].engine.dispose()
        server = Limited(folder / "study.sqlite") if fault == "pages" else Application(folder, url).start()
        stack.callback(server.stop)
        strike = {
            "kill": lambda: kill_worker(server),
            "restart": lambda: restart(cluster),
            "disk": lambda: fill(disk),
            "pages": lambda: server.strike,
        }[fault]()
        return outcome(url, spec, *endure(server.url, bots, every_s, pace_s, strike))


@click.command()
@click.option("--fault", type=click.Choice(["kill", "restart", "disk", "pages"]), default="kill", show_default=True)
@click.option("--database", "kind", type=click.Choice(["sqlite", "postgresql"]), default="sqlite", show_default=True)
@click.option("--bots", type=click.IntRange(2), default=100, show_default=True, help="A multiple of 4.")
@click.option("--trials", type=click.IntRange(1), default=60, show_default=True, help="Of each bot, an even number.")
@click.option("--every", default=5.0, show_default=True, help="Seconds between faults.")
@click.option("--pace", default=1.0, show_default=True, help="Seconds a trial.")
def main(fault: str, kind: str, bots: int, trials: int, every: float, pace: float) -> None:
    """Does a study lose or double an answer when its servers are killed, restarted or out of disk?"""
    if (fault == "restart") != (kind == "postgresql") and fault != "kill":
        raise click.UsageError("restart is for postgresql, disk and pages are for sqlite")
    found = suffer(fault, kind, bots, trials, every, pace)
    click.echo(found)
    if not found.is_sound:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
