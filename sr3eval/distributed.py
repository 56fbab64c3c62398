"""The processes of one job, as `torchrun` or `accelerate launch` started them. One process alone is a job, too."""

import atexit
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from sr3eval.errors import UserError

R = TypeVar("R")
T = TypeVar("T")
LEAVING = 0.2  # seconds
LONGEST = timedelta(days=7)  # that a process waits for others; the launcher ends all of them when one dies


@dataclass(frozen=True)
class Job:
    """Process number `rank`, from 0, of `count`.

    Every process calls `wait`, `largest`, `gather`, `map`, `lead` and `lead_in` in the same order.

    group: of torch.distributed, on the CPU, for what is not tensors. store: what they share without waiting for one
    another.
    """

    rank: int = 0
    count: int = 1
    group: Any = None
    store: Any = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that claims folders, shows progress and writes tables."""
        return self.rank == 0

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part: every count-th item."""
        return items[self.rank :: self.count]

    def part(self, batch: T) -> T:
        """This process's part of a batch (a tensor or sequence) that all share evenly: the rank-th of count."""
        size = len(batch) // self.count  # type: ignore[arg-type]
        return batch[self.rank * size : (self.rank + 1) * size]  # type: ignore[index]

    def wait(self) -> None:
        """Until all processes are here."""
        self.gather(None)

    def largest(self, number: int) -> int:
        """The largest of the numbers of all processes."""
        if self.count == 1:
            return number
        import torch.distributed

        found = torch.tensor(number)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=self.group)
        return int(found)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order of rank, in every process."""
        if self.count == 1:
            return [value]
        import torch.distributed

        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value, group=self.group)
        return values

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """work(item) of every item, in order, in every process; each was done by one of them (`own`)."""
        done = self.gather([work(item) for item in self.own(items)])
        return [done[index % self.count][index // self.count] for index in range(len(items))]

    def lead(self, work: Callable[[], T]) -> T:
        """Work that the first process does while the others wait; its result, or its UserError, is everyone's."""
        if self.count == 1:
            return work()
        import torch.distributed

        shared: list[Any] = [None]
        if self.leads:
            try:
                shared = [(work(), None)]
            except UserError as raised:
                shared = [(None, raised)]
        torch.distributed.broadcast_object_list(shared, src=0, group=self.group)
        result, error = shared[0]
        if error is not None:
            raise error
        return result

    @contextmanager
    def lead_in(self, context: AbstractContextManager[Any]) -> Iterator[None]:
        """A context that the first process enters before any goes on, and leaves when all are done, e.g. `files.held`.

        Raises UserError in every process where entering it does.
        """
        with ExitStack() as stack:

            def enter() -> None:
                stack.enter_context(context)

            self.lead(enter)
            yield
            self.wait()

    def tally(self, name: str) -> Callable[[int], int]:
        """What adds a number to a sum over all processes and returns the sum so far; nobody waits for anybody."""
        if self.count == 1:
            return _Sum().add
        return lambda number: self.store.add(name, number)


class _Sum:
    total = 0

    def add(self, number: int) -> int:
        self.total += number
        return self.total


ALONE = Job()


@functools.cache
def job() -> Job:
    """The job that this process belongs to: alone, unless a launcher says otherwise (WORLD_SIZE).

    GPUs are given out by local rank: `device.default_device` is this process's own from then on.
    """
    if not _is_shared():
        return ALONE
    import torch
    import torch.distributed
    from accelerate import PartialState

    store, rank, count = next(torch.distributed.rendezvous("env://"))
    store = torch.distributed.PrefixStore(_attempt(), store)
    state = PartialState(cpu=not torch.cuda.is_available(), store=store, rank=rank, world_size=count)
    group = torch.distributed.new_group(backend="gloo", timeout=LONGEST)
    atexit.register(_leave)
    return Job(state.process_index, state.num_processes, group, store)


def _leave() -> None:
    """Let go of the others. gloo's threads must not do so after Python has ended: that would abort the process.

    They free the tensors of the last exchange once they get Python's lock (PyTorch 2.14), which sleeping lets go of.
    """
    import torch.distributed

    time.sleep(LEAVING)
    torch.distributed.destroy_process_group()


def _is_shared() -> bool:
    """Whether a launcher started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _attempt() -> str:
    """What tells a job that `torchrun` restarted from its first attempt, whose store it keeps, with stale addresses.

    Several machines may count differently (PyTorch 2.14), so there the store is as it is.
    """
    one_machine = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') if one_machine else '?'}"


def leads() -> bool:
    """`Job.leads` without joining the job: imports no torch."""
    return os.environ.get("RANK", "0") == "0"


def speaks() -> bool:
    """Whether this process is the first of its job to ask that: the one to tell the user of an error."""
    if not _is_shared():
        return True
    import torch.distributed

    if not torch.distributed.is_initialized():
        return leads()
    try:
        return job().store.add("errors", 1) == 1
    except RuntimeError:  # the process that kept the store has gone
        return True


def lost_process(error: Exception) -> bool:
    """Whether this error of a collective operation means that another process of the job has ended."""
    if not _is_shared():
        return False
    import torch.distributed

    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
