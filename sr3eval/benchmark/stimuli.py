"""The stimulus pack of a run, so that people judge exactly the pixels that were scored."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sr3eval import packs
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.layout import HR, LR, RunFolder, of_sample
from sr3eval.benchmark.progress import Tell, silent
from sr3eval.config import read_toml
from sr3eval.errors import UserError, number
from sr3eval.folders import find_images
from sr3eval.images import header_size


def stimuli(
    folder: Path,
    out: Path,
    methods: Sequence[str],
    test: int,
    practice: int,
    catch: int,
    seed: int,
    tell: Tell = silent,
    samples: int = 1,
) -> None:
    """Copy the pictures of some images of a finished run into the new folder `out`, which appears whole or not at all.

    A run without HR gives a pack without, in which methods can be compared with one another.
    methods: names; none for all but the reference. Which images serve as practice and catch trials, and which at most
    `test` of the others are tested, depends on `seed` alone. samples: where a method has several, the second is packed
    as model "NAME@2", and so on to this number. Raises UserError for an unfinished run, an unknown method, more samples
    than there are, too few images, a picture that is missing or not of its HR's size, and an `out` that is there.
    """
    run = RunFolder(folder)
    config = RunConfig.parse(read_toml(run.config))
    if not run.results.exists():
        raise UserError(f"{folder}: has no results.csv; finish this run first")
    names = _slugs(config, methods, samples)
    given = {packs.HR: HR, packs.LR: LR} if config.has_hr else {packs.LR: LR}
    kinds = packs.kinds(list(find_images(run.images / next(iter(given.values())))), test, practice, catch, seed)
    packs.write(out, config.task.name, seed, names, _entries(run, config, given, names, kinds, tell))


def _entries(
    run: RunFolder,
    config: RunConfig,
    given: Mapping[str, str],
    names: Mapping[str, str],
    kinds: Mapping[str, packs.Kind],
    tell: Tell,
) -> Iterator[packs.Entry]:
    groups = _groups(run)
    for done, (image_id, kind) in enumerate(kinds.items(), start=1):
        files = {name: _content(run.image(source, image_id)) for name, source in given.items()}
        size = _output_size(run, config, image_id)
        files |= {slug: _content(run.image(slug, image_id), size) for slug in names}
        yield packs.Entry(image_id, kind, files, groups.get(image_id, ""))
        tell("stimuli", done, len(kinds))


def _groups(run: RunFolder) -> dict[str, str]:
    """{image id: group} of the images that metrics of single images scored."""
    if not run.per_image.exists():
        return {}
    with run.per_image.open(encoding="utf-8", newline="") as file:
        return {row["image_id"]: row["group"] for row in csv.DictReader(file)}


def _slugs(config: RunConfig, methods: Sequence[str], samples: int) -> dict[str, str]:
    """{slug: name} of the methods asked for, and of their samples."""
    known = {row.name: row for row in config.rows if row.is_picture}
    for name in methods:
        if name not in known:
            raise UserError(f'method "{name}": not in this run, which has {", ".join(known)}')
    chosen = {name: known[name] for name in methods or known}
    drawn = {name: row.method.samples if row.of == "first" else 1 for name, row in chosen.items()}
    if samples > (most := max(drawn.values())):
        raise UserError(f"--samples {samples}: these methods have {number(most, 'sample')} at most")
    return {
        of_sample(row.slug, k): of_sample(name, k)
        for name, row in chosen.items()
        for k in range(1, min(samples, drawn[name]) + 1)
    }


def _output_size(run: RunFolder, config: RunConfig, image_id: str) -> tuple[int, ...]:
    """(H, W) that every method's picture must have: HR's, or the scale times LR's where there is none."""
    if config.has_hr:
        return header_size(run.image(HR, image_id))
    return tuple(config.task.scale * side for side in header_size(run.image(LR, image_id)))


def _content(path: Path, size: tuple[int, ...] | None = None) -> bytes:
    """A picture's file as it is. size: (height, width) that it must have."""
    if not path.exists():
        raise UserError(f"{path}: is missing; run the benchmark again")
    if size is not None and header_size(path) != size:
        raise UserError(f"{path}: is not {size[1]}x{size[0]} pixels, as its input wants; run the benchmark again")
    return path.read_bytes()
