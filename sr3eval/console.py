"""What the command lines share: one-line errors, exit codes, progress bars. Imports no torch."""

import errno
import signal
import sys
from collections.abc import Generator, Iterator
from types import FrameType
from typing import Any, TypeVar

import click
from tqdm import tqdm

from sr3eval.errors import UserError

T = TypeVar("T")


class Group(click.Group):
    """A click group whose commands end an expected error with one line and exit code 1; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            click.echo("Stopped. The same command goes on from here.", err=True)
            ctx.exit(130)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror}. Mend that; the same command goes on.") from None


# tqdm's own, but with n rounded: it may be parts of an image.
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.7g}/{total} [{elapsed}<{remaining}, {rate_fmt}]"


def progress(description: str, total: int | None = None) -> "tqdm[Any]":
    """A progress bar with ETA on stderr; silent where that is not a terminal."""
    return tqdm(total=total, desc=description, bar_format=BAR, dynamic_ncols=True, disable=not sys.stderr.isatty())


def interruptible(events: Generator[T, None, None]) -> Iterator[T]:
    """Pass events on; a Ctrl-C lets the step in hand finish, closes the generator cleanly, and only then interrupts.

    A second Ctrl-C interrupts at once.
    """
    pressed = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        if sys.stderr.isatty():
            click.echo("\nStopping after the step in hand; press again to stop at once.", err=True)

    before = signal.signal(signal.SIGINT, note)
    try:
        for event in events:
            yield event
            if pressed:
                events.close()
                raise KeyboardInterrupt
        if pressed:  # after the last event
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)
