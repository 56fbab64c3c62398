"""The stimulus pack: pictures of a run for a human study, so that people judge exactly the pixels that were scored."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.layout import HR, LR, RunFolder
from sr3eval.benchmark.progress import Tell, silent
from sr3eval.config import read_toml
from sr3eval.data import find_images, stable_hash
from sr3eval.errors import UserError, number
from sr3eval.files import TEMPORARY, atomic_write
from sr3eval.images import header_size

FORMAT = 1  # of manifest.json


def stimuli(
    folder: Path,
    out: Path,
    methods: Sequence[str],
    test: int,
    practice: int,
    catch: int,
    seed: int,
    tell: Tell = silent,
) -> None:
    """Copy the pictures of some images of a finished run into the new folder `out`, which appears whole or not at all.

    A run without HR gives a pack without, in which methods can be compared with one another.
    methods: names; none for all but the reference. Which images serve as practice and catch trials, and which at most
    `test` of the others are tested, depends on `seed` alone. Raises UserError for an unfinished run, an unknown method,
    too few images, a picture that is missing or of another size than its HR, and an `out` that is there.
    """
    run = RunFolder(folder)
    config = RunConfig.parse(read_toml(run.config))
    if not run.results.exists():
        raise UserError(f"{folder}: has no results.csv; finish this run first")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists; give another folder")
    names = _slugs(config, methods)
    given = {"hr": HR, "lr": LR} if config.has_hr else {"lr": LR}
    kinds = _kinds(list(find_images(run.images / next(iter(given.values())))), test, practice, catch, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=out.parent) as temporary:
        pack = Path(temporary) / "pack"
        items = []
        for done, (image_id, kind) in enumerate(kinds.items(), start=1):
            sums = {name: _copy(run.image(source, image_id), pack / name, image_id) for name, source in given.items()}
            size = _output_size(run, config, image_id)
            sums |= {slug: _copy(run.image(slug, image_id), pack / slug, image_id, size) for slug in names}
            items.append({"image_id": image_id, "kind": kind, "sha256": sums})
            tell("stimuli", done, len(kinds))
        manifest = {"format": FORMAT, "task": config.task.name, "seed": seed, "methods": names, "items": items}
        atomic_write(pack / "manifest.json", json.dumps(manifest, indent=1).encode())
        pack.replace(out)


def _slugs(config: RunConfig, methods: Sequence[str]) -> dict[str, str]:
    """{slug: name} of the methods asked for."""
    known = {row.name: row.slug for row in config.rows if row.is_picture}
    for name in methods:
        if name not in known:
            raise UserError(f'method "{name}": not in this run, which has {", ".join(known)}')
    return {known[name]: name for name in methods or known}


def _kinds(ids: Sequence[str], test: int, practice: int, catch: int, seed: int) -> dict[str, str]:
    """{image_id: kind} in the order of the seeded choice."""
    if len(ids) <= practice + catch:
        raise UserError(
            f"{number(len(ids), 'image')} would leave none to test beside {practice} for practice and {catch} for catch"
            "; lower --practice and --catch"
        )
    order = sorted(ids, key=lambda image_id: stable_hash("stimuli", seed, image_id))
    kinds = ["practice"] * practice + ["catch"] * catch + ["test"] * test
    return dict(zip(order, kinds, strict=False))


def _output_size(run: RunFolder, config: RunConfig, image_id: str) -> tuple[int, ...]:
    """(H, W) that every method's picture must have: HR's, or the scale times LR's where there is none."""
    if config.has_hr:
        return header_size(run.image(HR, image_id))
    return tuple(config.task.scale * side for side in header_size(run.image(LR, image_id)))


def _copy(path: Path, to: Path, image_id: str, size: tuple[int, ...] | None = None) -> str:
    """Copy a picture as it is; its sha256. size: (height, width) that it must have."""
    if not path.exists():
        raise UserError(f"{path}: is missing; run the benchmark again")
    if size is not None and header_size(path) != size:
        raise UserError(f"{path}: is not {size[1]}x{size[0]} pixels, as its input wants; run the benchmark again")
    target = to / f"{image_id}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    return hashlib.sha256(target.read_bytes()).hexdigest()
