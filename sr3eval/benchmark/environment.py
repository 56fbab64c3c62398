"""What a run was made with, as far as it could matter to its numbers."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

import sr3eval

PACKAGES = ("torch", "numpy", "pandas", "pillow", "scipy", "torchvision", "timm", "lpips", "torch-fidelity", "spandrel")
HARDWARE = ("device", "cpu_capability", "cuda", "threads", "platform")


def describe() -> dict[str, object]:
    """Versions, device and threads: the same for every run on one installation."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    versions = {name: found for name in PACKAGES if (found := _version(name))}
    return {
        "sr3eval": sr3eval.__version__,
        "python": platform.python_version(),
        "platform": platform.system(),
        "device": device,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # chooses kernels, which round differently
        **({"cuda": torch.version.cuda} if torch.cuda.is_available() else {}),
        "threads": torch.get_num_threads(),
        **versions,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
