"""`sr3eval prepare`: list, check, state what it takes, write shards by several processes, write the index."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sr3eval.data import chunks
from sr3eval.device import threads
from sr3eval.errors import UserError, number
from sr3eval.files import atomic_write, claim_folder, free_disk
from sr3eval.prepare import Tell, celeba_hq, ffhq, folder, imagenet
from sr3eval.prepare.listing import Item, Listing
from sr3eval.prepare.processes import write_all
from sr3eval.prepare.split import Split, chosen
from sr3eval.prepare.verify import verify_archives, verify_shards
from sr3eval.prepare.writer import Shard, encoded, is_finished, written
from sr3eval.quantities import quantity
from sr3eval.shards import BEGUN, FORMAT, INDEX
from sr3eval.tasks import Task

Kind = Literal["ffhq", "celeba_hq", "imagenet", "folder"]
TRIED = 16  # images that are encoded to tell what all will take
SPARE = 1.1  # how much more than that must be free


@dataclass(frozen=True)
class Settings:
    """What is prepared, and how.

    Attributes:
        kind: of the source: its layout.
        source: folder or archive.
        size: side of the squares; None keeps images whole.
        split: the part that is taken; see `split.chosen`.
        validation: what the validation images are.
        labels: where labels are, see the source's `find`.
        per_shard: images of the source a shard.
        incomplete: accept another number of images than published.
    """

    kind: Kind
    source: Path
    size: int | None = None
    split: Split = "all"
    validation: str | None = None
    labels: str | None = None
    per_shard: int = 1000
    incomplete: bool = False

    @property
    def task(self) -> Task:
        """What is made of an image; tasks of at most this size make the same of it as of the original."""
        return Task("shards", 1, "whole" if self.size is None else f"square {self.size}")


def prepare(
    settings: Settings,
    out: Path,
    workers: int,
    verify: bool = False,
    tell: Tell = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the shards and their index into `out`; the same call resumes, and gives the same bytes.

    Args:
        settings: what is prepared, and how.
        out: the folder of the shards.
        workers: how many processes share the work.
        verify: compare published archives and the finished shards with their checksums.
        tell: is told (stage, done, total) after every step.
        say: is told in a line what will be made, and how much disk it takes.

    Returns:
        The index, as index.json has it.

    Raises:
        UserError: a source of another layout or number of images, too little disk, a folder that holds something else,
            or a checksum that differs.
    """
    if not settings.source.exists():
        raise UserError(f"{settings.source}: no such file or folder")
    listing = _listed(settings, tell)
    items = chosen(listing, settings.split, settings.validation)
    if not settings.incomplete:
        _check_count(listing, items, settings)
    if verify:
        verify_archives(listing.archives, tell)
    shards = _shards(settings, listing, items, out)
    missing = [shard for shard in shards if not is_finished(shard)]
    if missing:
        _check_disk([item for shard in missing for item in shard.items], settings.task, out, say)
    claim_folder(out, BEGUN, json.dumps(_identity(settings, items), indent=2))
    _write(missing, len(items), workers, tell)
    index = _index(settings, listing, shards)
    if not index["images"]:
        raise UserError(f"{settings.source}: no image is left ({summary(index)})")
    atomic_write(out / INDEX, json.dumps(index).encode())
    if verify:
        verify_shards(out, tell)
    return index


def _listed(settings: Settings, tell: Tell) -> Listing:
    match settings.kind:
        case "ffhq":
            return ffhq.find(settings.source, settings.labels)
        case "celeba_hq":
            return celeba_hq.find(settings.source, settings.labels)
        case "imagenet":
            return imagenet.find(settings.source, settings.labels, tell)
        case "folder":
            return folder.find(settings.source, settings.labels)


def _write(missing: Sequence[Shard], total: int, workers: int, tell: Tell) -> None:
    before = total - sum(len(shard.items) for shard in missing)
    tell("prepare", before, total)
    write_all(missing, workers, lambda done: tell("prepare", before + done, total))


def _check_count(listing: Listing, items: Sequence[Item], settings: Settings) -> None:
    """Of the publisher's own split its part is counted, of any other the whole."""
    own = settings.validation is None
    part, found = (settings.split, len(items)) if own else ("all", len(listing.items))
    published = listing.published.get(part, found)
    if found != published:
        of_part = "" if part == "all" else f" for {part}"
        raise UserError(
            f"{settings.source}: has {number(found, 'image')}{of_part}; {settings.kind} has {published:,}. Complete "
            "it, or accept that with --incomplete"
        )


def _identity(settings: Settings, items: Sequence[Item]) -> dict[str, Any]:
    """What a started folder is known by: all that its bytes depend on, save the pixels of the source."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.image_id}\x1f{item.label}\x1e".encode())
    made = {"framing": settings.task.framing, "per_shard": settings.per_shard, "split": settings.split}
    return {"format": FORMAT, "kind": settings.kind, "items": digest.hexdigest()} | made


def _shards(settings: Settings, listing: Listing, items: Sequence[Item], out: Path) -> list[Shard]:
    numbers = {name: number for number, name in enumerate(listing.classes)}
    parts = chunks(items, settings.per_shard)
    return [Shard(out / f"{n:06}.tar", part, settings.task, numbers) for n, part in enumerate(parts)]


def _check_disk(items: Sequence[Item], task: Task, out: Path, say: Callable[[str], None]) -> None:
    """State the disk that the images will take, by some of them, and refuse if there is not as much."""
    needed = len(items) * _mean_bytes(items[:: max(1, math.ceil(len(items) / TRIED))], task)
    free = free_disk(out)
    takes, left = quantity(needed, "B"), quantity(free, "B")
    say(f"{number(len(items), 'image')} to prepare: about {takes} of disk, {left} are free")
    if needed * SPARE > free:
        raise UserError(f"{out}: about {takes} of disk are needed and {left} are free; make room")


def _mean_bytes(items: Sequence[Item], task: Task) -> float:
    sizes = []
    with threads(1):
        for item in items:
            try:
                found = encoded(item, task)
            except UserError:
                continue
            if found:
                sizes.append(len(found[0]) + 1024)  # with its header and padding
    return sum(sizes) / len(items)


def _index(settings: Settings, listing: Listing, shards: Sequence[Shard]) -> dict[str, Any]:
    entries, too_small = [], 0
    unreadable: dict[str, str] = {}
    for shard in shards:
        found = written(shard)
        if found is None:
            raise UserError(f"{shard.path}: has disappeared; run the same command again")
        count = {"nsamples": len(found["members"]), "filesize": found["filesize"], "sha256": found["sha256"]}
        entries.append({"url": shard.path.name} | count)
        too_small += len(found["too_small"])
        unreadable |= found["unreadable"]
    about = {"kind": settings.kind, "split": settings.split, "framing": settings.task.framing}
    return (
        {"format": FORMAT, "wids_version": 1, "name": settings.kind}
        | about
        | {"images": sum(entry["nsamples"] for entry in entries), "classes": listing.classes}
        | {"left_out": {"too_small": too_small, "unreadable": unreadable}, "shardlist": entries}
    )


def summary(index: Mapping[str, Any]) -> str:
    """What was written and what was left out, in a line."""
    left_out, classes = index["left_out"], index["classes"]
    parts = [number(index["images"], "image"), number(len(index["shardlist"]), "shard")]
    parts += [f"{len(classes)} classes"] if classes else []
    parts += [f"{left_out['too_small']} left out as too small"] if left_out["too_small"] else []
    if unreadable := left_out["unreadable"]:
        parts.append(f"{len(unreadable)} left out as unreadable, first {next(iter(unreadable.values()))}")
    return ", ".join(parts)
