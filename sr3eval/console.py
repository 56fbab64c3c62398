"""What the command lines share: one-line errors, exit codes, progress bars. Imports no torch."""

import errno
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import EntryPoint, entry_points
from types import FrameType, TracebackType
from typing import IO, Any, ClassVar

import click
from tqdm import tqdm

from sr3eval import distributed
from sr3eval.errors import UserError, out_of_memory

# The extra that installs an optional package which sr3eval or baselines import.
EXTRAS = {
    **dict.fromkeys(
        (
            "accelerate",
            "jinja2",
            "lpips",
            "psutil",
            "pyarrow",
            "safetensors",
            "timm",
            "torch",
            "torch_fidelity",
            "torchvision",
        ),
        "eval",
    ),
    "flask": "study",
    "lmdb": "prepare",
    "matplotlib": "analysis",
    "spandrel": "baselines",
    "sqlalchemy": "study",
}


COMMANDS = "sr3eval.commands"  # entry points
SPEAKING = 2.0  # seconds that the process that says what ends a job is given; then the launcher ends all


class Refusal(click.ClickException):
    """An expected error, as one line of the first process of a job that has one."""

    def show(self, file: IO[Any] | None = None) -> None:
        if distributed.speaks():
            super().show(file)
        else:
            time.sleep(SPEAKING)


def say(text: str, err: bool = False) -> None:
    """Print a line, once a job."""
    if distributed.leads():
        click.echo(text, err=err)


ROOM = "make room; the same command resumes"
WRITABLE = "fix its permissions, or use another folder"
REACHABLE = "check the disk or the network; the same command resumes"
LOST = "Another process of this job ended, so this one stops. The same command resumes."
MEMORY = (
    "not enough memory: lower batch_size, raise optimiser.accumulate, or cut large images into parts; the same command "
    "resumes"
)
REMEDIES = {  # of what the system says of files, by its number
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "raise the limit on file sizes (ulimit -f); the same command resumes",
    errno.EMFILE: "raise the limit on open files (ulimit -n); the same command resumes",
    errno.EACCES: WRITABLE,
    errno.EPERM: WRITABLE,
    errno.EROFS: WRITABLE,
    errno.ENOTDIR: "give another folder",
    errno.EEXIST: "give another path",
    errno.EISDIR: "give another path",
    errno.ENAMETOOLONG: "shorten the name",
    errno.EIO: REACHABLE,
    errno.ESTALE: REACHABLE,
    errno.ETIMEDOUT: REACHABLE,
}


def missing_package(error: ModuleNotFoundError) -> str | None:
    """What to do about it, where it is of an optional package."""
    package = (error.name or "").partition(".")[0]
    return f"{package} is not installed: pip install 'sr3eval[{EXTRAS[package]}]'" if package in EXTRAS else None


class Group(click.Group):
    """A click group whose commands end an expected error with one line and exit code 1; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise Refusal(str(error)) from None
        except ModuleNotFoundError as error:
            if (remedy := missing_package(error)) is None:
                raise
            raise Refusal(remedy) from None
        except KeyboardInterrupt as stopped:
            if distributed.speaks():
                click.echo("Stopped. The same command resumes from here.", err=True)
            ctx.exit(128 + (stopped.args[0] if stopped.args else signal.SIGINT))
        except (MemoryError, RuntimeError) as error:
            if distributed.lost_process(error):
                raise Refusal(LOST) from None
            if not out_of_memory(error):
                raise
            raise Refusal(MEMORY) from None
        except OSError as error:
            if error.errno not in REMEDIES:
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise Refusal(f"{where}{error.strerror}; {REMEDIES[error.errno]}") from None


class Joined(click.Command):
    """A command of another package, which is imported when it is called, not to list it."""

    def __init__(self, point: EntryPoint) -> None:
        super().__init__(point.name, help=f"Further commands: see `sr3eval {point.name} --help`.")
        self.point = point

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """That of the command itself."""
        try:
            command: click.Command = self.point.load()
        except ModuleNotFoundError as error:
            needed = f"{error.name} is not installed, which `sr3eval {self.name}` needs: README.md lists the extras"
            raise Refusal(missing_package(error) or needed) from None
        return command.make_context(*arguments, **options)


class Joining(Group):
    """A group that installed packages add commands to, by the entry point group `sr3eval.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Own ones, then those that join in."""
        return [*super().list_commands(ctx), *sorted(entry_points(group=COMMANDS).names)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The own one of that name, or one that joins in."""
        joined = (Joined(point) for point in entry_points(group=COMMANDS, name=name))
        return super().get_command(ctx, name) or next(joined, None)


# tqdm's own, but with n rounded: it may be parts of an image.
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.7g}/{total} [{elapsed}<{remaining}, {rate_fmt}]"


EVERY = 30.0  # seconds between two lines


class Lines:
    """Progress with ETA as a line every 30 s, for files and logs; the interface is that of a bar of tqdm.

    A thread writes them, so that there is one during a long step, too. Stages that follow one another share the clock:
    a line comes 30 s after the last one, whatever stage that was of.
    """

    told: ClassVar[float] = 0.0
    ended: ClassVar[float] = float("-inf")

    def __init__(self, description: str, total: int | None) -> None:
        self.description, self.total, self.n = description, total, 0.0
        self.postfix: dict[str, Any] = {}
        self.begun, self.over = time.monotonic(), threading.Event()
        self.thread = threading.Thread(target=self._tell, daemon=True)

    def update(self, n: float) -> None:
        """So much more is done."""
        self.n += n

    def set_postfix(self, values: dict[str, Any]) -> None:
        """What stands behind the time left."""
        self.postfix = values

    def __enter__(self) -> "Lines":
        if time.monotonic() - Lines.ended > 1:
            Lines.told = time.monotonic()
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.over.set()
        self.thread.join()
        Lines.ended = time.monotonic()

    def _tell(self) -> None:
        done, since = self.n, self.begun
        while not self.over.wait(max(0.0, Lines.told + EVERY - time.monotonic())):
            Lines.told = now = time.monotonic()
            # By the pace since the last line: what was found done at the beginning took no time.
            left = (self.total or 0) - self.n
            eta = left * (now - since) / (self.n - done) if self.n > done else None
            click.echo(self._line(now - self.begun, eta), err=True)
            if self.n > done:
                done, since = self.n, now

    def _line(self, elapsed: float, eta: float | None) -> str:
        left = "time left unknown" if eta is None else f"about {tqdm.format_interval(eta)} left"
        postfix = "".join(f", {key} {value}" for key, value in self.postfix.items())
        total = "?" if self.total is None else self.total
        return f"{self.description}: {self.n:.7g} of {total}, {tqdm.format_interval(elapsed)} elapsed, {left}{postfix}"


def progress(description: str, total: int | None = None) -> "tqdm[Any] | Lines":
    """Progress with ETA on stderr, of a job's first process: a bar on a terminal, elsewhere a line every 30 s."""
    if distributed.leads() and not sys.stderr.isatty():
        return Lines(description, total)
    return tqdm(total=total, desc=description, bar_format=BAR, dynamic_ncols=True, disable=not distributed.leads())


@contextmanager
def interrupts(*numbers: signal.Signals, agreed: Callable[[int], int] = int) -> Iterator[Callable[[], None]]:
    """Give what is to be called after each step: one of these signals lets the step in hand finish, and interrupts
    there, as KeyboardInterrupt(number). A second Ctrl-C interrupts at once.

    agreed: makes of the signal that this process got, or 0, the one that all of a job take.
    """
    received = 0

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt(number)
        received = received or number
        if number == signal.SIGINT and distributed.leads() and sys.stderr.isatty():
            click.echo("\nStopping after the current step; press again to stop at once.", err=True)

    def stop() -> None:
        if number := agreed(received):
            raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stages() -> Iterator[Callable[[str, float, int], None]]:
    """Give what is to be told (stage, done, total) after each step: it draws the progress of each stage in turn.

    A Ctrl-C or SIGTERM ends the work as `interrupts` says. Processes that do not lead (see `distributed.leads`) draw
    nothing.
    """
    with interrupts(signal.SIGINT, signal.SIGTERM) as stop, ExitStack() as stack:
        if not distributed.leads():
            yield lambda stage, done, total: stop()
            return
        current: tuple[str, Any] = ("", None)

        def tell(stage: str, done: float, total: int) -> None:
            nonlocal current
            if stage != current[0] or current[1] is None:
                stack.close()
                current = (stage, stack.enter_context(progress(stage, total)))
            current[1].update(done - current[1].n)
            stop()

        yield tell
