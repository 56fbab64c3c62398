"""What the service says no to. Routes turn the code into an HTTP status."""

from typing import Any


class RefusedError(Exception):
    """`code` is for programs, `message` one line for people; `extra` goes into the answer too."""

    def __init__(self, code: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.extra = code, message, extra
