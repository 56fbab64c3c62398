"""How exactly does a real browser show the study's pictures for as long as it should?

    apt-get install chromium
    python profiling/study_timing.py [--trials 100] [--exposure 3000]

One subject in headless Chromium goes through a study of Task-1 on the real server (Flask's own, a new SQLite file) and
answers by key; what is reported is what the browser sent and the server stored. An exposure lasts from the time stamp
of the first frame with the pictures to that of the first without (study_protocol.md §3); its error is the difference
from what was asked for, at best up to half a frame because screens change in frames. What a display adds, no software
sees. A frame is dropped where the page got fewer than the exposure has room for. Targets: median <= 1 frame, 99th
percentile <= 2 frames. About `trials` times 4 s; a quiet machine.
"""

import logging
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import click
import numpy as np
import pandas as pd
from playwright.sync_api import Page, sync_playwright
from sqlalchemy import select
from study_of_noise import open_study
from werkzeug.serving import make_server

sys.path.insert(0, str(Path(__file__).parents[1]))

from study_app import create_app
from study_app.models import Response
from study_app.spec import Spec

SIDE = 256  # of a picture, in pixels
FIXATION_MS = 500
ASKED = "#trial[data-state=response] .ask:visible"
COLUMNS = ("exposure_ms", "n_frames", "frame_median_ms", "frame_max_gap_ms", "decode_ms", "timing_ok")


def application(folder: str, trials: int, exposure: int):
    """The study, running."""
    app = create_app({"DATABASE_URL": f"sqlite:///{folder}/study.sqlite", "SECRET_KEY": "benchmark"})
    counts = {"images": trials, "per_subject": trials, "target": 1, "practice": 0, "catch": 0, "catch_pass": 0}
    spec = Spec("Timing", task=1, exposures_ms=(exposure,), fixation_ms=FIXATION_MS, breaks=0, **counts)
    open_study(app, "timing", spec, ["noise"], SIDE)
    return app


def take_part(page: Page, url: str, trials: int, exposure: int) -> None:
    """From consent to the last answer; nothing is asked of the page while it shows pictures."""
    page.goto(url)
    page.click("#agree")
    page.click("#instructions button")
    for number in range(trials):
        page.wait_for_timeout(FIXATION_MS + exposure)
        page.wait_for_selector(ASKED)
        page.keyboard.press("fj"[number % 2])
        page.wait_for_selector(ASKED, state="hidden")
    page.wait_for_url("**/done")


def measured(trials: int, exposure: int) -> pd.DataFrame:
    """One row a trial, times in ms."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as engine:
        app = application(folder, trials, exposure)
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        take_part(page, f"http://127.0.0.1:{server.port}/s/timing", trials, exposure)
        browser.close()
        server.shutdown()
        with app.extensions["study_database"].read() as db:
            return pd.DataFrame(db.execute(select(*(getattr(Response, name) for name in COLUMNS))), columns=COLUMNS)


def report(rows: pd.DataFrame, exposure: int) -> str:
    frame = rows.frame_median_ms.median()
    error = (rows.exposure_ms - exposure).abs()
    median, p99, worst = np.percentile(error, [50, 99, 100])
    room = (rows.exposure_ms / rows.frame_median_ms).round()
    dropped = (room - rows.n_frames).clip(lower=0)
    return "\n".join(
        (
            f"{len(rows)} exposures of {exposure} ms, a frame takes {frame:.2f} ms",
            f"error      median {median / frame:.2f} frames ({median:.2f} ms), target 1 frame",
            f"           99 % {p99 / frame:.2f} frames ({p99:.2f} ms), target 2 frames",
            f"           largest {worst / frame:.2f} frames ({worst:.2f} ms)",
            f"dropped    {dropped.sum():.0f} of {room.sum():.0f} frames, in {(dropped > 0).sum()} exposures",
            f"gaps       longest between frames {rows.frame_max_gap_ms.max():.1f} ms",
            f"decoding   slowest picture {rows.decode_ms.max():.1f} ms",
            f"timing_ok  {rows.timing_ok.sum()} of {len(rows)}",
        )
    )


@click.command()
@click.option("--trials", default=100, show_default=True, help="Even, so that the sides are balanced.")
@click.option("--exposure", default=3000, show_default=True, help="In ms.")
def main(trials: int, exposure: int) -> None:
    """Measure the exposures of TRIALS trials in Chromium."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    click.echo(report(measured(trials, exposure), exposure))


if __name__ == "__main__":
    main()
