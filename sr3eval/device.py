"""Where networks run, and in which precision they train."""

import inspect
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch

from sr3eval.errors import UserError

ALL_THREADS = torch.get_num_threads()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch compute on so many CPU threads. For small tensors one: others cost more than they do."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def all_threads() -> AbstractContextManager[None]:
    """`threads` for networks, inside those for small tensors."""
    return threads(ALL_THREADS)


def default_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of convolutions in training: bfloat16 where "auto" finds hardware for it, or where it is asked for."""
    if precision == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16, rather than PyTorch emulating it."""
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported
        emulates = "including_emulation" in inspect.signature(supported).parameters
        return supported(including_emulation=False) if emulates else supported()
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # private: PyTorch may drop it
    return probe is not None and probe()


def half_dtype(half: bool, device: torch.device) -> torch.dtype:
    """The dtype of a diffusion model's convolutions; UserError where the hardware has no bfloat16."""
    if half and not has_bfloat16(device):
        raise UserError(f"half = true: this {device.type.upper()} does not compute in bfloat16; leave it out")
    return torch.bfloat16 if half else torch.float32


def check_compiler(device: torch.device) -> None:
    """UserError where torch.compile would miss the C++ compiler that it calls on the CPU."""
    default = "clang++" if sys.platform == "darwin" else "g++"
    compiler = os.environ.get("CXX", default).split()[:1]  # arguments may follow
    if device.type == "cpu" and not any(map(shutil.which, compiler)):
        raise UserError(
            "optimiser.compile needs a C++ compiler on the CPU: install g++, or set CXX to another (clang++), "
            "or --set optimiser.compile=false"
        )


class Graphed:
    """A function of tensors of fixed shapes, captured as one CUDA graph: thousands of launches become one.

    function: works on the GPU alone, without waiting for it, and returns one tensor; what it leaves elsewhere (say
    gradients) is left there again by every call. The returned tensor is overwritten by the next call.
    """

    WARM_UP = 3  # calls before the capture, in which libraries choose and compile what they run

    def __init__(self, function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor]) -> None:
        self.inputs = [tensor.clone() for tensor in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self.WARM_UP):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = function(*self.inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.output
