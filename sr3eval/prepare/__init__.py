"""From data sets as they are published to the tar shards that training and evaluation read: `sr3eval prepare`."""

from collections.abc import Callable

Tell = Callable[[str, float, int], None]  # is told (stage, done, total) after every step
