"""The one exception that users are meant to see."""

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend. The command line shows its message, mostly one line, without a traceback."""

    def __str__(self) -> str:
        """A line an argument; of what cannot be printed, as in odd names of files, the escape sequence."""
        return "\n".join(map(_printable, map(str, self.args)))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory does not suffice; PyTorch has no type of its own for that on CPUs."""
    said = re.search("out of memory|allocate memory", str(error))
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and said is not None)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which valid name was probably meant: `did you mean "psnr"?`, or list them all."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"valid: {', '.join(names)}" if names else "none is available"


def number(count: int, noun: str) -> str:
    """A count with its noun: "1 image", "2 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
