"""Commands in processes of their own, forked from one that has imported torch: importing it takes each two seconds."""

import inspect
import multiprocessing
import os
import signal
import time
from pathlib import Path

from torch.distributed import TCPStore

ROOT = Path(__file__).parents[1]
TORCHRUN = ("torch.distributed.run", "--standalone")
ACCELERATE = ("accelerate.commands.launch", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no")
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(
    ["accelerate", "torch.utils.tensorboard", "sr3eval.benchmark", "sr3eval.diffusion.estimate"]
)


def become(command: list[str], environment: dict[str, str], output: str) -> None:
    """Be `python command`, of a script, or `python -m command`, with all that it prints in a file."""
    import os
    import runpy
    import sys

    import torch

    os.environ.clear()
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    torch.set_num_threads(1)
    sys.argv = command
    if command[0].endswith(".py"):
        runpy.run_path(command[0], run_name="__main__")
    else:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)


# As source: a forked process could import another package's `tests`.
BECOME = f"{inspect.getsource(become)}\nbecome(*given)"


class Started:
    """A command, in one process or in several; what they print comes into one file."""

    def __init__(self, command: list[str], environments: list[dict[str, str]], output: Path) -> None:
        self.output = output
        given = [(command, environment, str(output)) for environment in environments]
        self.processes = [WARM.Process(target=exec, args=(BECOME, {"given": own})) for own in given]
        for process in self.processes:
            process.start()

    @property
    def code(self) -> int | None:
        """The exit code, of several the one furthest from 0; None while any runs."""
        codes = [process.exitcode for process in self.processes]
        return None if None in codes else max(codes, key=abs)

    def wait_for(self, path: Path, after: int = 0) -> None:
        """Until it has written a file, after a time in nanoseconds."""
        while not path.exists() or path.stat().st_mtime_ns <= after:
            assert self.code is None, self.output.read_text()
            time.sleep(0.02)

    def finish(self) -> tuple[int, str]:
        """Exit code and output."""
        end = time.monotonic() + 120
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        assert self.code is not None, f"does not end: {self.output.read_text()}"
        return self.code, self.output.read_text()

    def signal(self, number: int) -> None:
        for process in self.processes:
            if process.exitcode is None:
                os.kill(process.pid, number)

    def end(self) -> None:
        """Whatever a failed test has left running."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.signal(number)
            for process in self.processes:
                process.join(20)


class Jobs:
    """Starts commands, whose output it keeps in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started, self.stores = folder, [], []

    def start(self, *command: object, ranks: int | None = None, **environment: str) -> Started:
        """Start `python -m command`, or `python command` of a script; with ranks, in so many processes of one job."""
        common = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # of this checkout
        own = os.environ | common | environment
        output = self.folder / f"output_{len(self.started)}.txt"
        environments = [own] if ranks is None else [own | rank for rank in self._ranks(ranks)]
        self.started.append(Started([str(part) for part in command], environments, output))
        return self.started[-1]

    def run(self, *command: object, ranks: int | None = None, **environment: str) -> tuple[int, str]:
        """Exit code and output of a command."""
        return self.start(*command, ranks=ranks, **environment).finish()

    def _ranks(self, count: int) -> list[dict[str, str]]:
        """What `torchrun` tells the processes of a job; it keeps their store, too."""
        self.stores.append(TCPStore("localhost", 0, is_master=True))
        job = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(self.stores[-1].port), "WORLD_SIZE": str(count)}
        job |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        return [job | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
