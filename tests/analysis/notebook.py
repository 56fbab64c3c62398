"""What tests of notebooks share: a kernel of this interpreter to run them in, and a small run for them to read."""

import json
import os
from pathlib import Path
from typing import Any

import nbformat
import tomli_w
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "analysis" / "notebooks"
TRUTH = {"sr3": 0.475, "esrgan (RealSR-DF2K)": 0.30, "regression": 0.25}  # of the notebooks
STRICT = """\
import warnings
warnings.filterwarnings("error", module=r"(__main__|analysis|study_app|sr3eval|baselines|benchmark)\\b")
"""
# Methods that differ at once: nearest neighbour with more or less noise.
METHOD = """\
import torch
class Noisy:
    name, scale = "noisy", 4
    def __init__(self, noise):
        self.noise, self.fingerprint = noise, f"noisy {noise}"
    def upscale(self, lr, seeds):
        sr = torch.nn.functional.interpolate(lr, scale_factor=4)
        noise = torch.stack([torch.randn(sr.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds])
        return (sr + self.noise * noise).clamp(0, 1)
def build(*, noise): return Noisy(noise)
"""


def execute(name: str, folder: Path, ask: str, **settings: Path | str) -> Any:
    """Run a notebook in `folder` with SR3EVAL_<SETTING> set; returns what the expression `ask` is at its end."""
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    book.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    book.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({ask}))"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SR3EVAL_")}
    environment |= {f"SR3EVAL_{key.upper()}": str(value) for key, value in settings.items()}
    environment["IPYTHONDIR"] = str(folder / "ipython")  # nobody's own startup files
    own = KernelSpecManager(kernel_dirs=[])  # finds no kernel but ipykernel's own, which is of this interpreter
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=own)
    client = NotebookClient(book, km=manager, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    return json.loads("".join(output.text for output in book.cells[-1].outputs))


def write_config(folder: Path) -> Path:
    """The config of a run of the embedded photographs by methods of TRUTH's names, and bicubic."""
    (folder / "noisy.py").write_text(METHOD)
    noisy = {"python": f"{folder / 'noisy.py'}:build"}
    methods = [{"name": name, **noisy, "noise": 0.02 * (i + 1)} for i, name in enumerate(TRUTH)]
    plain = {
        "task": "photos_16_64",
        "metrics": ["psnr", "ssim", "consistency"],
        "data": {"images": "sr3eval:assets/photos_16_64", "limit": 64, "group": "parent"},
        "method": [{"kind": "bicubic"}, *methods],
    }
    (folder / "small.toml").write_text(tomli_w.dumps(plain))
    return folder / "small.toml"
