"""Shards written by several processes, which stop within an image and end with the process that began them."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, ClassVar

import torch

from sr3eval.device import threads
from sr3eval.errors import UserError
from sr3eval.prepare.writer import Shard, write

EVERY = 0.5  # seconds between two looks at what the processes have done

Tell = Callable[[int], None]  # is told how many images are done


def write_all(shards: Sequence[Shard], workers: int, tell: Tell) -> None:
    """Write shards. What `tell` raises ends the work within an image a process; a shard in hand is given up.

    Raises UserError for a process that was killed.
    """
    if workers <= 1 or len(shards) <= 1:
        with threads(1):
            count = itertools.count(1)
            for shard in shards:
                write(shard, lambda: tell(next(count)))
        return
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Value("b", 0, lock=False)
    with ProcessPoolExecutor(min(workers, len(shards)), context, _begin, (done, stop)) as pool:
        try:
            _follow({pool.submit(_write, shard) for shard in shards}, lambda: tell(done.value))
        finally:
            stop.value = 1
            pool.shutdown(cancel_futures=True)


def _follow(waiting: set[Future[None]], look: Callable[[], None]) -> None:
    """Until all are done, or one has failed."""
    try:
        while waiting:
            finished, waiting = wait(waiting, EVERY, FIRST_EXCEPTION)
            look()
            for future in finished:
                future.result()
    except BrokenProcessPool:
        look()  # lest it was the signal that ends this process, too
        raise UserError("a process was killed, most likely because memory ran out; use fewer --workers") from None


class _Shared:
    """What a process shares with the one that began it: the number of images done, and whether to stop."""

    done: ClassVar[Any]
    stop: ClassVar[Any]


def _begin(done: Any, stop: Any) -> None:
    """One thread a process; a Ctrl-C is for the process that began it."""
    _Shared.done, _Shared.stop = done, stop
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed process cannot tell its workers to end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _write(shard: Shard) -> None:
    _check()
    write(shard, _step)


def _step() -> None:
    """An image is done."""
    with _Shared.done.get_lock():
        _Shared.done.value += 1
    _check()


def _check() -> None:
    if _Shared.stop.value:
        raise CancelledError  # the shard in hand is given up
