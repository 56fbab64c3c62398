"""Makes basicsr.npz: what BasicSR's imresize, PSNR and SSIM give. python basicsr.py BasicSR

    git clone https://github.com/XPixelGroup/BasicSR           # at 8d56e3a
    pip install opencv-python-headless==5.0.0.93 torch

imresize works in float32: [C, H, W] of `image(shape)`, keys "imresize 3x41x67 0.25" and so on. The scores are float64:
"scores" holds a row a pair of `pair(i)` (blurred, noisy, shifted), (PSNR, SSIM) of Y with a border of 4 pixels cut.
"""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SHRUNK = [((3, 41, 67), scale) for scale in (1 / 2, 1 / 3, 1 / 4, 1 / 8)] + [((1, 48, 64), 1 / 4)]
ENLARGED = [((1, 17, 22), scale) for scale in (2, 3, 4)]
PAIRS = 3


def image(shape):
    """A texture with edges, float32 in [0, 1]; RandomState's stream is frozen."""
    channel, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    waves = np.sin(0.9 * x + channel) * np.cos(0.35 * y) + (x + 2 * y > 60)
    noise = np.random.RandomState(0).uniform(size=shape)
    return ((waves + 1 + noise) / 4).clip(0, 1).astype(np.float32)


def pair(i):
    """(SR, HR), uint8 [H, W, 3] in RGB."""
    hr = (image((3, 52, 60)) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    others = np.roll(hr, 1, axis=1), hr // 2 + 40, np.random.RandomState(1).randint(0, 256, hr.shape).astype(np.uint8)
    return others[i], hr


def module(folder, path, name):
    spec = importlib.util.spec_from_file_location(name, Path(folder) / path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def metrics(folder):
    """BasicSR's psnr_ssim.py, with a stand-in for the registry of its package."""
    for name in ("basicsr", "basicsr.utils", "basicsr.metrics", "basicsr.utils.registry"):
        sys.modules[name] = types.ModuleType(name)
    registry = types.SimpleNamespace(register=lambda: lambda function: function)
    sys.modules["basicsr.utils.registry"].METRIC_REGISTRY = registry
    colours = module(folder, "basicsr/utils/color_util.py", "basicsr.utils.color_util")
    sys.modules["basicsr.utils"].bgr2ycbcr = colours.bgr2ycbcr
    module(folder, "basicsr/metrics/metric_util.py", "basicsr.metrics.metric_util")
    return module(folder, "basicsr/metrics/psnr_ssim.py", "basicsr.metrics.psnr_ssim")


def main(folder):
    import torch

    imresize = module(folder, "basicsr/utils/matlab_functions.py", "matlab_functions").imresize
    arrays = {
        f"imresize {'x'.join(map(str, shape))} {scale:.4g}": imresize(torch.from_numpy(image(shape)), scale).numpy()
        for shape, scale in SHRUNK + ENLARGED
    }
    scores = metrics(folder)
    bgr = [[side[..., ::-1] for side in pair(i)] for i in range(PAIRS)]
    options = {"crop_border": 4, "test_y_channel": True}
    functions = scores.calculate_psnr, scores.calculate_ssim
    arrays["scores"] = np.array([[function(*pair, **options) for function in functions] for pair in bgr])
    np.savez_compressed(HERE / "basicsr.npz", **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
