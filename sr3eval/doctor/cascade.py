"""What a config of `sr3eval cascade` needs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sr3eval.config import check_call, from_dict
from sr3eval.diffusion.cascade import build_stages
from sr3eval.diffusion.cascade_estimate import picture_bytes
from sr3eval.diffusion.cascade_folder import CascadeConfig, CascadeFolder, build_generator
from sr3eval.doctor.findings import Finding, attempt, missing
from sr3eval.doctor.training import disk
from sr3eval.errors import UserError, number

REMEDY = "train it, or name another file"


def check(data: Mapping[str, Any], out: Path) -> Iterator[Finding]:
    """Config, the checkpoint of each model, whether they fit one another, and disk."""
    try:
        config = from_dict(CascadeConfig, data)
    except UserError as error:
        yield missing("config", str(error))
        return
    yield Finding("config", f"cascade of {number(1 + len(config.stage), 'model')}, {number(config.images, 'image')}")
    models = [attempt("generator", lambda: generator(config.generator), REMEDY)]
    for index, table in enumerate(config.stage, start=1):
        models.append(attempt(f"stage {index}", lambda table=table: stage(table), REMEDY))  # type: ignore[misc]
    yield from models
    if all(model.state == "ok" for model in models):
        yield from whole(config, out)


def generator(table: dict[str, Any]) -> str:
    built = build_generator(**check_call(build_generator, table, "generator"))
    return f"{table['checkpoint']}: {built.name}, {built.size}x{built.size} images"


def stage(table: dict[str, Any]) -> str:
    (built,) = build_stages([table], "stage")
    return f"{table['checkpoint']}: {built.method.name}, {built.method.scale} times"


def whole(config: CascadeConfig, out: Path) -> Iterator[Finding]:
    """Whether the models fit one another, and their images the disk."""
    try:
        folder = CascadeFolder(config, out)
    except UserError as error:
        yield missing("sizes", str(error))
        return
    yield from (Finding("sizes", remark, "note") for remark in folder.remarks)
    yield disk(picture_bytes(folder), out)
