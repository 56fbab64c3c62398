"""Files of weights: who publishes them and under which licence, where they lie, and reading them without running code.

Nothing here knows a method. The file of a method or of a metric declares beside its code, each if it has any:

    RELEASES: tuple[Release, ...]    the files that it reads
    KEYS: dict[str, str]             whose weights they are, and a pattern that one of their keys matches, no other's
    FORMATS: tuple[Format, ...]      its files that are no PyTorch checkpoints
    REMARKS: tuple[str, ...]         what is known of its outputs, e.g. biases
"""

from sr3eval.weights.releases import FOLDER, Format, Release, declared, folders, locate, looks_like, no_downloads, table
from sr3eval.weights.state_dict import (
    PickledCodeError,
    StateDict,
    identify,
    load,
    load_state,
    read,
    read_bytes,
    without_prefixes,
)

__all__ = [
    "FOLDER",
    "Format",
    "PickledCodeError",
    "Release",
    "StateDict",
    "declared",
    "folders",
    "identify",
    "load",
    "load_state",
    "locate",
    "looks_like",
    "no_downloads",
    "read",
    "read_bytes",
    "table",
    "without_prefixes",
]
