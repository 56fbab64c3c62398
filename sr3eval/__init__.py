"""Compare image super-resolution models: SR3, baselines, metrics, benchmark.

    import sr3eval

    results = sr3eval.run("configs/quickstart.toml", "runs/quickstart")

run(config, out)        a whole run, from a RunConfig, a dict or a TOML file to results.csv and a report
RunConfig               what a run is; `RunConfig.parse` checks a dict
TASKS, Task             the named tasks, and what makes the inputs of another
load_method(kind, ...)  a method, as a config's [[method]] names it: sr3, bicubic, esrgan ...
load_metric(name, ...)  a metric, as a config names it
psnr(sr, hr)            dB of each image, [N], of [N, 3, H, W] in [0, 1]
ssim(sr, hr)            structural similarity of each image, [N]
consistency(sr, lr)     mean square error of each output, downsampled, to its input, [N]
Method, Upscaled        what your own method subclasses, and what its `upscale` returns
Facts                   what a method says of itself: checksums, architecture, licence
Metric                  what scores batches and adds up
UserError               what is raised for a mistake of the user's, with the remedy in its message

Each is imported when it is first asked for, so that `import sr3eval` needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sr3eval.benchmark import run
    from sr3eval.benchmark.config import RunConfig
    from sr3eval.errors import UserError
    from sr3eval.method import Facts, Method, Upscaled
    from sr3eval.methods import load as load_method
    from sr3eval.metrics import Metric
    from sr3eval.metrics import load as load_metric
    from sr3eval.metrics.consistency import consistency
    from sr3eval.metrics.psnr import psnr
    from sr3eval.metrics.ssim import ssim
    from sr3eval.tasks import TASKS, Task

__version__ = "0.1.0"
__all__ = [
    "TASKS",
    "Facts",
    "Method",
    "Metric",
    "RunConfig",
    "Task",
    "Upscaled",
    "UserError",
    "consistency",
    "load_method",
    "load_metric",
    "psnr",
    "run",
    "ssim",
]

_PLACES = {
    "TASKS": "tasks.TASKS",
    "Facts": "method.Facts",
    "Method": "method.Method",
    "Metric": "metrics.Metric",
    "RunConfig": "benchmark.config.RunConfig",
    "Task": "tasks.Task",
    "Upscaled": "method.Upscaled",
    "UserError": "errors.UserError",
    "consistency": "metrics.consistency.consistency",
    "load_method": "methods.load",
    "load_metric": "metrics.load",
    "psnr": "metrics.psnr.psnr",
    "run": "benchmark.run",
    "ssim": "metrics.ssim.ssim",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, member = _PLACES[name].rpartition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), member)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
