"""What lies in a cache: how much of which method, what is damaged, and what no run needs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import sr3eval
from sr3eval.benchmark.cache import Cache, Entry, Origin, content_of, key_of, seed_of
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.layout import LR, RunFolder
from sr3eval.benchmark.progress import Count, Tell
from sr3eval.benchmark.resume import read_json
from sr3eval.benchmark.scores import read_config
from sr3eval.errors import UserError, number
from sr3eval.files import remove_unfinished
from sr3eval.folders import find_images
from sr3eval.images import load
from sr3eval.quantities import quantity


@dataclass
class Share:
    """How many entries, their bytes, and those of them that no run's folder shares (by hard links)."""

    entries: int = 0
    size: int = 0
    alone: int = 0
    runs: set[str] = field(default_factory=set)

    def add(self, files: Iterable[Path], run: str) -> None:
        """Add an entry by its files."""
        sizes = [(found.st_size, found.st_nlink) for found in map(Path.stat, files)]
        self.entries += 1
        self.size += sum(size for size, _ in sizes)
        self.alone += sum(size for size, names in sizes if names == 1)
        self.runs |= {run} if run else set()


def opened(folder: Path) -> Cache:
    """The cache in a folder. Raises UserError for a folder that is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    cache = Cache(folder)
    if next(cache.keys(), None) is None and any(folder.iterdir()):
        raise UserError(f"{folder}: not a cache of outputs: it has other files and no entries")
    return cache


def listing(cache: Cache, keys: Iterable[str] | None = None) -> str:
    """A table of the entries (by default all) by method and task, and a line of their sum."""
    shares: defaultdict[tuple[str, str], Share] = defaultdict(Share)
    for key in cache.keys() if keys is None else keys:
        origin = _origin(cache, key)
        files = [path for suffix in ("png", "json") if (path := cache.path(key, suffix)).exists()]
        shares[origin.method or "unknown", origin.task or "unknown"].add(files, origin.run)
    rows = [("method", "task", "entries", "size", "only here", "runs")]
    rows += [
        (method, task, f"{share.entries:,}", quantity(share.size, "B"), quantity(share.alone, "B"), _runs(share.runs))
        for (method, task), share in sorted(shares.items(), key=lambda item: -item[1].size)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows] if shares else []
    entries, size, alone = (sum(getattr(s, name) for s in shares.values()) for name in ("entries", "size", "alone"))
    return "\n".join([*lines, f"{_entries(entries)}, {quantity(size, 'B')}, of which {quantity(alone, 'B')} only here"])


def _runs(runs: Set[str]) -> str:
    first = sorted(runs)[:2]
    return ", ".join(first) + (f" and {len(runs) - len(first)} more" if len(runs) > len(first) else "")


def _origin(cache: Cache, key: str) -> Origin:
    try:
        return Entry.parse(cache.path(key, "json").read_bytes()).origin
    except (OSError, ValueError, TypeError):
        return Origin()


def verified(cache: Cache, tell: Tell) -> str:
    """Look at every entry, remove those that are damaged or half there, and say how many."""
    keys = sorted(cache.keys())
    count, damaged = Count("verify", len(keys), tell), 0
    for key in keys:
        if cache.read(key) is None:
            cache.remove(key)
            damaged += 1
        count.advance(1)
    return f"{_entries(len(keys))} verified, {damaged:,} damaged and removed"


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count:,} entries"


def unneeded(cache: Cache, runs: Sequence[Path], tell: Tell) -> list[str]:
    """The keys of entries that none of the runs would look up.

    Raises UserError for a run that has outputs of which none is there: whoever names it means another cache.
    """
    present, needed = set(cache.keys()), set[str]()
    for run in runs:
        keys = set(needed_by(run, tell))
        if not keys & present and RunFolder(run).has_pictures(_made(read_config(run))):
            raise UserError(f"{run}: none of its outputs is in {cache.folder}; it has another cache")
        needed |= keys
    return sorted(present - needed)


def _made(config: RunConfig) -> list[str]:
    """The folders of pictures that methods made."""
    return [slug for method in config.method if not method.is_copied for slug in method.slugs]


def prune(cache: Cache, keys: Iterable[str]) -> None:
    """Remove entries, and the unfinished files of processes that were killed."""
    for key in keys:
        cache.remove(key)
    remove_unfinished(cache.folder)


def needed_by(folder: Path, tell: Tell) -> Iterator[str]:
    """The keys that a run looks up when it is run again, from its files alone.

    Raises UserError for what is no run, for one whose inputs are not all there yet, and for one of another release,
    whose keys are others.
    """
    config, run = read_config(folder), RunFolder(folder)
    made = [method for method in config.method if not method.is_copied]
    if not made:
        return
    if not run.inputs.exists():
        raise UserError(f"{folder}: its inputs are not all prepared, so its entries cannot be told; run it first")
    release = read_json(run.environment).get("sr3eval", sr3eval.__version__)
    if release != sr3eval.__version__:
        raise UserError(f"{folder}: a run of sr3eval {release}, whose entries {sr3eval.__version__} cannot tell")
    identities = {name: of["identity"] for name, of in read_json(run.fingerprints).items()}
    inputs = find_images(run.images / LR)
    count = Count(f"{folder.name}: {number(len(inputs), 'input')}", len(inputs), tell)
    for image_id, path in inputs.items():
        content = content_of(load(path))
        for method in made:
            for seed in method.seeds or (config.seed,):
                for sample in range(1, method.samples + 1):
                    yield key_of(identities[method.name], content, seed_of(seed, image_id, sample))
        count.advance(1)
