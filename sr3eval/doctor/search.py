"""What a config of `sr3eval search-schedule` needs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sr3eval.config import from_dict, resolve_path
from sr3eval.device import default_device, half_dtype
from sr3eval.diffusion import checkpoint, schedules
from sr3eval.diffusion.search import SCHEDULES_FILE, Searcher, refuse_other
from sr3eval.diffusion.search_config import SearchConfig
from sr3eval.doctor.findings import Finding, attempt, missing
from sr3eval.errors import UserError, number

REMEDY = "train it, or name another file"


def check(data: Mapping[str, Any], out: Path) -> Iterator[Finding]:
    """Config, checkpoint, precision; and then all else that a search checks before it works."""
    try:
        config = from_dict(SearchConfig, data)
    except UserError as error:
        yield missing("config", str(error))
        return
    yield Finding("config", f"search of samplers for {number(len(config.budgets), 'budget')}")
    path = config.checkpoint
    weights = attempt("checkpoint", lambda: f"{path}: step {checkpoint.load(path, 'sr3').step}", REMEDY)
    yield weights
    if config.half:
        yield attempt("precision", lambda: str(half_dtype(True, default_device())).removeprefix("torch."))
    if weights.state == "ok":
        yield attempt("images", lambda: images(config, out))


def images(config: SearchConfig, out: Path) -> str:
    """How many there are, where the rest of the config fits."""
    refuse_other(schedules.beside(resolve_path(config.checkpoint)), out / SCHEDULES_FILE)
    searcher = Searcher(config)
    return f"{config.data.images}: {number(len(searcher.folder), 'image')} that are large enough"
