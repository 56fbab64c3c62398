"""What a run was made with, as far as it could matter to its numbers."""

import platform
from importlib.metadata import version

import torch

import sr3eval

PACKAGES = ("torch", "numpy", "pandas", "pillow")


def describe() -> dict[str, object]:
    """Versions, device and threads: the same for every run on one installation."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    versions = {name: version(name) for name in PACKAGES}
    return {
        "sr3eval": sr3eval.__version__,
        "python": platform.python_version(),
        "platform": platform.system(),
        "device": device,
        "threads": torch.get_num_threads(),
        **versions,
    }
