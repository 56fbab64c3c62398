"""What the command lines share: one-line errors, exit codes, progress bars. Imports no torch."""

import errno
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from types import FrameType, TracebackType
from typing import IO, Any, ClassVar, TypeVar

import click
from tqdm import tqdm

from sr3eval import distributed
from sr3eval.errors import UserError

T = TypeVar("T")

# The extra that installs an optional package which sr3eval or baselines import.
EXTRAS = {
    **dict.fromkeys(
        ("accelerate", "jinja2", "lpips", "psutil", "safetensors", "timm", "torch", "torch_fidelity", "torchvision"),
        "eval",
    ),
    "lmdb": "prepare",
    "matplotlib": "analysis",
    "spandrel": "baselines",
    "sqlalchemy": "study",
}


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
        except KeyboardInterrupt:
            if distributed.speaks():
                click.echo("Stopped. The same command resumes from here.", err=True)
            ctx.exit(130)
        except RuntimeError as error:
            if not distributed.lost_process(error):
                raise
            raise Refusal("Another process of this job ended, so this one stops. The same command resumes.") from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise Refusal(f"{where}{error.strerror}. Mend that; the same command resumes.") from None


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
        return f"{self.description}: {self.n:.7g} of {total}, {tqdm.format_interval(elapsed)} gone, {left}{postfix}"


def progress(description: str, total: int | None = None) -> "tqdm[Any] | Lines":
    """Progress with ETA on stderr, of a job's first process: a bar on a terminal, elsewhere a line every 30 s."""
    if distributed.leads() and not sys.stderr.isatty():
        return Lines(description, total)
    return tqdm(total=total, desc=description, bar_format=BAR, dynamic_ncols=True, disable=not distributed.leads())


@contextmanager
def interrupts(agreed: Callable[[bool], bool] = bool) -> Iterator[Callable[[], None]]:
    """Give what is to be called after each step: a Ctrl-C lets the step in hand finish and interrupts there.

    A second Ctrl-C interrupts at once. agreed: makes of whether this process is to stop whether all of a job are.
    """
    pressed = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        if distributed.leads() and sys.stderr.isatty():
            click.echo("\nStopping after the step in hand; press again to stop at once.", err=True)

    def stop() -> None:
        if agreed(pressed):
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def interruptible(events: Generator[T, None, None], agreed: Callable[[bool], bool] = bool) -> Generator[T, None, None]:
    """Pass events on; a Ctrl-C ends them as `interrupts` says, with the generator closed cleanly."""
    with interrupts(agreed) as stop, closing(events):
        for event in events:
            yield event
            stop()
        stop()


@contextmanager
def stages() -> Iterator[Callable[[str, float, int], None]]:
    """Give what is to be told (stage, done, total) after each step: it draws the progress of each stage in turn.

    A Ctrl-C ends the work as `interrupts` says. Processes that do not lead (see `distributed.leads`) draw nothing.
    """
    with interrupts() as stop, ExitStack() as stack:
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
