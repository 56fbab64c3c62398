"""The schedule search of the embedded SR3, as configs/search has it."""

import tempfile
import time
from pathlib import Path

import torch
from gpu_stages.job import UNFINISHED, Found, Job

from sr3eval import config as configs
from sr3eval.diffusion import schedules
from sr3eval.diffusion.search import PAGE, SCHEDULES_FILE, search
from sr3eval.diffusion.search_config import SearchConfig
from sr3eval.diffusion.search_page import FIGURE
from sr3eval.files import atomic_write

RECIPE = Path("configs/search/photos_16_64.toml")
ON_GPU = ("batch_size=256", "half=true")
SMALL = (
    "budgets=[1, 2]",
    "kept=1",
    "rounds=1",
    "seeds=1",
    "reference={}",
    "data.number=8",
    "data.coarse=4",
    'space={solver=["dpmpp_2m"], first_beta=[1e-4], jump=[0.0]}',
)
BROUGHT = {SCHEDULES_FILE: "sr3.schedules.json", PAGE: PAGE, FIGURE: FIGURE}


class OutOfTimeError(Exception):
    """The stage's time is over; what was tried is kept."""


def run(job: Job, seconds: float, checkpoint: Path) -> Found:
    """Search; writes sr3.schedules.json, search.html and curve.svg. Out of time, what was tried is kept for a next run.

    checkpoint: of SR3; nothing is written beside it.
    """
    end = time.monotonic() + seconds
    torch.backends.cudnn.benchmark = True
    told = [0.0, 0]

    def tell(_stage: str, done: float, total: int) -> None:
        told[:] = done, total
        if time.monotonic() > end and not job.small:
            raise OutOfTimeError

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "sr3.safetensors"
        copy.write_bytes(checkpoint.read_bytes())
        overrides = SMALL if job.small else ON_GPU
        config = configs.from_dict(SearchConfig, configs.read_toml(RECIPE, (f"checkpoint={copy}", *overrides)))
        out = job.out / ".search"
        try:
            found = search(config, out, tell)
        except OutOfTimeError:
            return {UNFINISHED: f"{told[0]:.0f} of {told[1]} evaluations"}
    for name, brought in BROUGHT.items():
        atomic_write(job.out / brought, (out / name).read_bytes())
    return {"evaluations": told[1], "recommended": found.recommended, "rows": [_row(best) for best in found.found]}


def _row(best: schedules.Found) -> dict[str, object]:
    interval = f"[{best.low:.2f}, {best.high:.2f}]"
    return configs.to_dict(best.sampler) | {"distance": round(best.distance, 2), "interval": interval}
