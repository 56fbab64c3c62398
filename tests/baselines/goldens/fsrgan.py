"""Write fsrgan.npz, what two ports of FSRNet make of random weights: python FILE CHECKOUT_A CHECKOUT_B, no test.

    git clone https://github.com/cs-giung/FSRNet-pytorch       # A, at 5b67fdf
    git clone https://github.com/cydiachen/FSRNET_pytorch      # B, at e792839
    pip install opencv-python-headless==5.0.0.93 torchvision   # on x86, where OpenCV has Intel's IPP

The arrays, for each port ("a", "b") at its full size; images are [N, 3, H, W], every third pixel of every third row:

    keys, shapes    of the state dict
    image, running  the network's output in double precision, in training mode image by image, and in evaluation mode
    png             what its scripts write: A's of "image", as its scripts stay in training mode, B's of "running"

B needs widths that are whole numbers to run on Python 3, and its images are written by SciPy's toimage, which is gone.
Weights and inputs are not stored: `weight` and `low_resolution` make them from their names.
"""

import re
import runpy
import sys
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

LR = (2, 3, 16, 16)  # N, 3, h, w
STEP = 3
SHARED = re.compile(r"((?:csr_net|fsr_enc|fsr_dec)\.res_blocks)\.\d+")  # blocks that are one in A


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 1) seeded by a name, in float32; RandomState's stream is frozen."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of the state dict: kernels keep variances, norms scale by about 0.3, so that sums stay small."""
    values = drawn(SHARED.sub(r"\1.0", key), shape)
    if not shape:
        return np.array(7)  # a count of batches
    if len(shape) > 1:
        return values * np.float32((0.15 if shape[0] == 3 else 1) / np.sqrt(np.prod(shape[1:])))
    offset = {"running_var": 1.0, "weight": 0.3}.get(key.rpartition(".")[2], 0.0)
    return values * np.float32(0.1) + np.float32(offset)


def low_resolution() -> np.ndarray:
    """LR in uint8."""
    return np.clip(127 + 60 * drawn("lr", LR), 0, 255).astype(np.uint8)


def arrays(network: nn.Module, inputs: list[Tensor]) -> dict[str, np.ndarray]:
    """Keys, shapes and outputs of a port's network."""
    state = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    filled = {key: torch.from_numpy(weight(key, shape)) for key, shape in state.items()}
    found = {"keys": np.array(list(state)), "shapes": np.array([" ".join(map(str, s)) for s in state.values()])}
    for name, training in (("image", True), ("running", False)):
        images = []
        for x in inputs:
            network.load_state_dict(filled)  # in training mode, running statistics go on
            images.append(network.train(training).double()(x.double())[2])
        found[name] = torch.cat(images).float().numpy()
    return found


def network_a(folder: Path) -> nn.Module:
    return runpy.run_path(str(folder / "nets.py"))["FSRNet"](0, 11)


def network_b(folder: Path) -> nn.Module:
    def whole(layer):
        return lambda *widths, **options: layer(*(int(w) for w in widths), **options)

    with mock.patch.object(nn, "Conv2d", whole(nn.Conv2d)), mock.patch.object(nn, "BatchNorm2d", whole(nn.BatchNorm2d)):
        return runpy.run_path(str(folder / "model" / "networks.py"))["define_G"](3, 3, 64, None)


def input_a(folder: Path, image: np.ndarray) -> Tensor:
    """[1, 3, 128, 128] of a [3, 16, 16] in uint8, as datasets/celeb.py and eval.py make it."""
    resized = Image.fromarray(image.transpose(1, 2, 0)).resize((128, 128), Image.BICUBIC)
    normalised = runpy.run_path(str(folder / "utils.py"))["_normalize"](np.array(resized)[None])
    return torch.from_numpy(normalised).float()


def input_b(image: np.ndarray) -> Tensor:
    """As data/dataloader.py makes it."""
    import cv2

    resized = cv2.resize(image.transpose(1, 2, 0), (128, 128), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(resized.transpose(2, 0, 1)).float()[None] / 255


def port_a(folder: Path) -> dict[str, np.ndarray]:
    found = arrays(network_a(folder), [input_a(folder, image) for image in low_resolution()])
    png = runpy.run_path(str(folder / "utils.py"))["_denormalize"](torch.from_numpy(found["image"])).astype("uint8")
    return found | {"png": png.transpose(0, 3, 1, 2)}


def port_b(folder: Path) -> dict[str, np.ndarray]:
    found = arrays(network_b(folder), [input_b(image) for image in low_resolution()])
    return found | {"png": ((found["running"] * 255).clip(0, 255) + 0.5).astype(np.uint8)}


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    golden = {}
    for port, found in (("a", port_a(Path(sys.argv[1]))), ("b", port_b(Path(sys.argv[2])))):
        for name, array in found.items():
            golden[f"{port}_{name}"] = array[..., ::STEP, ::STEP] if array.ndim == 4 else array
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **golden)
