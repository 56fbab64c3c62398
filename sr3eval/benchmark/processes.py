"""How the processes of a job share a run's work, so that its files are the same bytes whatever their number."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from sr3eval.distributed import job
from sr3eval.errors import UserError

EVERY = 1.0  # seconds until processes tell one another how far they are
MOST_READERS = 8  # threads that load batches: each holds one
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


def together(work: Callable[[], T]) -> list[T]:
    """What work() gives in each process, in order of rank, in all of them; a UserError of one is everyone's."""
    result, error = None, None
    try:
        result = work()
    except UserError as raised:
        error = raised
    found = job().gather((result, error and str(error)))
    if error is not None:
        raise error
    for _, message in found:
        if message is not None:
            raise UserError(message)
    return [given for given, _ in found]  # type: ignore[misc]


def deal(items: Sequence[S], work: Callable[[S], int], advance: Callable[[int], None]) -> None:
    """Do the work of every item once, in whichever process: those left are dealt anew every second.

    work: returns by how many images it gets on. advance: is told that in every process, for all processes.
    """
    if job().count == 1:
        for item in items:
            if images := work(item):
                advance(images)
        return
    while items:
        own = job().own(items)
        progress = together(lambda own=own: _some(own, work))  # type: ignore[misc]
        advance(sum(images for _, images in progress))
        items = [item for i, item in enumerate(items) if i // job().count >= progress[i % job().count][0]]


def _some(items: Sequence[S], work: Callable[[S], int]) -> tuple[int, int]:
    """Work on items for about a second: how many are done, and by how many images that gets on."""
    end, images, done = time.monotonic() + EVERY, 0, 0
    for item in items:
        images += work(item)
        done += 1
        if time.monotonic() > end:
            break
    return done, images


def rounds(items: Sequence[S], load: Callable[[S], T], work: Callable[[T], R]) -> Iterator[R]:
    """work(load(item)) of every item, in order, in every process, each of which does every count-th.

    The next ones are loaded in threads meanwhile. No process is a round ahead: memory holds one result of each.
    """
    own, count, rank = prefetched(load, job().own(items), readers()), job().count, job().rank
    for start in range(0, len(items), count):
        has_one = start + rank < len(items)
        found = together(lambda has_one=has_one: work(next(own)) if has_one else None)  # type: ignore[misc]
        yield from found[: len(items) - start]  # type: ignore[misc]


def readers() -> int:
    """Threads that a process loads with: this machine's cores are shared by the job's processes on it."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", job().count))
    return min(MOST_READERS, max(1, (os.cpu_count() or 1) // local))


def prefetched(function: Callable[[S], T], items: Sequence[S], threads: int) -> Iterator[T]:
    """function(item) for every item, in order; the next ones are computed in so many threads meanwhile."""
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pending = deque(pool.submit(function, item) for item in items[:threads])
        try:
            for item in items[threads:]:
                pending.append(pool.submit(function, item))
                yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
