"""How long does the researcher's progress page take while a large study runs?

    python profiling/dashboard.py [--pairs] [--responses 50000] [--database URL]

Fills a study with sessions of 48 test trials (and 8 catch trials) by plain inserts, then asks the application for every
admin page, ten times each. --pairs: of four models, each compared with each, with ties. Target of the progress page,
which looks again every ten seconds: 200 ms at 50,000 responses to test trials.
"""

import math
import os
import random
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from sqlalchemy import insert, select
from study_of_noise import open_study
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))

from study_app import create_app
from study_app.models import Participant, PlanSlot, PlanTrial, Response, Session, Stimulus, Trial
from study_app.signing import new_token
from study_app.spec import Spec

IMAGES = PER_SUBJECT = 48
CATCH = 8
FULL_ROUND = 6  # subjects; after so many each image has been shown with every pair equally often
PASSWORD = "correct horse battery"
MEASURED = {
    "t_on": 0.0,
    "t_off": 3000.0,
    "exposure_ms": 3000.0,
    "n_frames": 180,
    "frame_median_ms": 16.7,
    "frame_max_gap_ms": 17.0,
    "hidden_ms": 0.0,
    "blur_count": 0,
    "rt_from_onset_ms": 3500.0,
    "dpr": 1.0,
    "css_w": 256.0,
    "css_h": 256.0,
    "natural_w": 8,
    "natural_h": 8,
    "viewport_w": 1280,
    "viewport_h": 800,
    "fullscreen": False,
    "decode_ms": 1.0,
    "early_attempts": 0,
}


def design(pairs: bool, subjects: int) -> tuple[Spec, list[str]]:
    """A study and its models."""
    spec = Spec("Load", 2, images=IMAGES, per_subject=PER_SUBJECT, target=subjects, practice=0, catch=CATCH)
    if not pairs:
        return spec, ["m"]
    return replace(spec, compare="models", mode="within", tie="Neither"), ["a", "b", "c", "d"]


def fill(app, spec: Spec, models: list[str]) -> None:
    """Everybody has finished; what is chosen depends on the subject and on the image."""
    rng = random.Random(0)
    open_study(app, "load", spec, models, side=8)
    with app.extensions["study_database"].write() as db:
        consent = {"consent_version": "1", "consent_sha256": "0" * 64, "consent_at": 0}
        slots = list(db.scalars(select(PlanSlot.id).order_by(PlanSlot.id)))
        people = [{"id": slot, "study_id": 1, "code": new_token(), **consent} for slot in slots]
        db.execute(insert(Participant), people)
        sitting = {"state": "finished", "started_at": 0, "expires_at": 1, "finished_at": 400_000, "excluded_reason": ""}
        db.execute(
            insert(Session),
            [{"id": s, "participant_id": s, "slot_id": s, "completion_code": new_token(), **sitting} for s in slots],
        )
        planned = db.execute(
            select(PlanTrial.id, PlanTrial.slot_id, PlanTrial.real_side, Stimulus.kind, Stimulus.number)
            .join(PlanTrial.stimulus)
            .order_by(PlanTrial.id)
        ).all()
        tokens = ("token", "left_token", "right_token", "middle_token")
        times = {"left_served_at": 0, "right_served_at": 0, "started_at": 0, "attempt": "a", "showings": 1}
        db.execute(
            insert(Trial),
            [
                {"id": id_, "session_id": slot, "plan_trial_id": id_, **{name: new_token() for name in tokens}, **times}
                for id_, slot, *_ in planned
            ],
        )
        subject = {slot: rng.gauss(0, 0.1) for slot in slots}
        image = [rng.gauss(0.45, 0.15) for _ in range(IMAGES)]
        rows = []
        for id_, slot, side, kind, number in planned:
            fooled = kind == "test" and rng.random() < subject[slot] + image[number]
            choice = {"left": "right", "right": "left"}[side] if fooled else side
            choice = "tie" if spec.tie and kind == "test" and rng.random() < 0.1 else choice
            given = {"choice": choice, "input": "key", "rt_ms": rng.lognormvariate(6.5, 0.4), "timing_ok": True}
            uuid = {"client_uuid": new_token(), "body_sha256": "0" * 64}
            rows.append({"id": id_, "trial_id": id_, "received_at": 0, **uuid, **given, **MEASURED})
        db.execute(insert(Response), rows)


def logged_in(app):
    """A browser of the researcher's."""
    app.extensions["study_accounts"].set_password("me", PASSWORD)
    client = app.test_client()
    token = re.search(r'name="csrf" value="([^"]+)"', client.get("/admin/login").text)[1]
    client.post("/admin/login", data={"name": "me", "password": PASSWORD, "csrf": token})
    return client


@click.command()
@click.option("--pairs", is_flag=True, help="Of pairs of models.")
@click.option("--responses", default=50_000, show_default=True, help="To test trials, at least.")
@click.option("--times", default=10, show_default=True, help="That each page is asked for.")
@click.option("--database", help="URL; a new SQLite file by default.")
def main(pairs: bool, responses: int, times: int, database: str | None) -> None:
    """Time the admin pages of a study."""
    subjects = math.ceil(responses / PER_SUBJECT / FULL_ROUND) * FULL_ROUND
    with tempfile.TemporaryDirectory() as folder:
        url = database or f"sqlite:///{folder}/study.sqlite"
        app = create_app({"DATABASE_URL": url, "SECRET_KEY": "benchmark", "DURABLE": False})
        fill(app, *design(pairs, subjects))
        client = logged_in(app)
        threadpool_limits(1)  # as the server has it
        for page in ("", "/subjects", "/payments", "/images", "/log"):
            took = []
            for _ in range(times):
                begin = time.perf_counter()
                assert client.get(f"/admin/load{page}").status_code == 200
                took.append(1000 * (time.perf_counter() - begin))
            click.echo(f"/admin/load{page:12} median {np.median(took):5.0f} ms, slowest {max(took):5.0f} ms")
        app.extensions["study_database"].engine.dispose()
    click.echo(f"{subjects * PER_SUBJECT} responses, load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
