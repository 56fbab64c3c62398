"""The processes of one job, as `torchrun` or `accelerate launch` started them. One process alone is a job, too."""

import atexit
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from sr3eval.errors import UserError

T = TypeVar("T")
LONGEST = timedelta(days=7)  # that a process waits for others; the launcher ends all of them when one dies


@dataclass(frozen=True)
class Job:
    """Process number `rank`, from 0, of `count`. Every process calls `wait`, `gather` and `lead` in the same order.

    group: of torch.distributed, on the CPU, for what is not tensors.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that claims folders, shows progress and writes tables."""
        return self.rank == 0

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part: every count-th item."""
        return items[self.rank :: self.count]

    def wait(self) -> None:
        """Until all processes are here."""
        self.gather(None)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order of rank, in every process."""
        if self.count == 1:
            return [value]
        import torch.distributed

        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value, group=self.group)
        return values

    def lead(self, work: Callable[[], T]) -> T:
        """Work that the first process does while the others wait; its result, or its UserError, is everyone's."""
        result, error = None, None
        if self.leads:
            try:
                result = work()
            except UserError as raised:
                error = str(raised)
        result, error = self.gather((result, error))[0]
        if error is not None:
            raise UserError(error)
        return result  # type: ignore[return-value]


@functools.cache
def job() -> Job:
    """The job that this process belongs to: alone, unless a launcher says otherwise (WORLD_SIZE).

    GPUs are given out by local rank: `device.default_device` is this process's own from then on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Job()
    import torch
    import torch.distributed
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    group = torch.distributed.new_group(backend="gloo", timeout=LONGEST)
    atexit.register(torch.distributed.destroy_process_group)  # else gloo's threads may abort a process that ends
    return Job(state.process_index, state.num_processes, group)
