"""Write sr3_janspiry.npz, what Janspiry's code makes of reduced networks: python FILE CHECKOUT, no part of the tests.

CHECKOUT: github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement at 01d27a7. The arrays, for each of the
two released structures ("128", "512") at a smaller width:

    keys, shapes  of the state dict that its DDPM.save_network writes, schedule included
    noise         UNet([x, y], level), where x is the enlarged LR in [-1, 1]
    step          p_sample(y, 1999, x) of the released schedule
    chain         p_sample_loop(x) of `CHAIN`'s three steps, image by image: of a batch it returns the last one
    png           chain, by core.metrics.tensor2img

Weights, inputs and noise are not stored: `drawn` makes them from their names.
"""

import sys
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional

UNETS = {
    "128": {"channel_mults": (1, 2, 4, 8, 8), "attn_res": [16], "res_blocks": 2, "norm_groups": 4, "image_size": 128},
    "512": {"channel_mults": (1, 2, 4, 8, 16), "attn_res": [], "res_blocks": 1, "norm_groups": 8, "image_size": 512},
}
CHANNELS = 8
LEVEL = 0.7  # sqrt(gamma)
RELEASED = {"schedule": "linear", "n_timestep": 2000, "linear_start": 1e-6, "linear_end": 1e-2}
CHAIN = {"schedule": "linear", "n_timestep": 3, "linear_start": 0.05, "linear_end": 0.3}
LR = (2, 3, 2, 4)  # N, 3, h, w
HR = (2, 3, 16, 32)


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 1) seeded by a name, in float32; RandomState's stream is frozen."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of the state dict: scaled to keep variances; vectors are near 1 (norms) or 0 (biases)."""
    if len(shape) > 1:
        return drawn(key, shape) / np.float32(np.sqrt(np.prod(shape[1:])))
    return drawn(key, shape) * np.float32(0.1) + np.float32(key.endswith("weight"))


def low_resolution() -> np.ndarray:
    """LR in uint8."""
    return np.clip(127 + 60 * drawn("lr", LR), 0, 255).astype(np.uint8)


def noise(step: int) -> np.ndarray:
    """The noise that starts the chain (0) and that of its later steps."""
    return drawn(f"noise {step}", HR)


def enlarged() -> Tensor:
    """The condition, as data/prepare_data.py and data/LRHR_dataset.py make it."""
    images = [Image.fromarray(image.transpose(1, 2, 0)) for image in low_resolution()]
    resized = [functional.resize(image, HR[2:], Image.BICUBIC) for image in images]
    return torch.stack([functional.to_tensor(image) for image in resized]) * 2 - 1


def golden(options: dict) -> dict[str, np.ndarray]:
    """The arrays of one structure, computed by the checkout."""
    from core.metrics import tensor2img
    from model.sr3_modules.diffusion import GaussianDiffusion
    from model.sr3_modules.unet import UNet

    network = UNet(in_channel=6, out_channel=3, inner_channel=CHANNELS, dropout=0.2, **options)
    diffusion = GaussianDiffusion(network, options["image_size"]).eval()
    diffusion.set_new_noise_schedule(RELEASED, "cpu")
    state = {key: tuple(value.shape) for key, value in diffusion.state_dict().items()}
    filled = {f"denoise_fn.{key}": value for key, value in network.state_dict().items()}
    filled = {key: torch.from_numpy(weight(key, tuple(value.shape))) for key, value in filled.items()}
    diffusion.load_state_dict(filled, strict=False)

    x, first, second = enlarged(), torch.from_numpy(noise(0)), torch.from_numpy(noise(1))
    with torch.no_grad(), mock.patch("torch.randn_like", return_value=second):
        predicted = network(torch.cat([x, first], 1), torch.full((len(x), 1), LEVEL))
        step = diffusion.p_sample(first, 1999, condition_x=x)
    diffusion.set_new_noise_schedule(CHAIN, "cpu")
    chain = torch.stack([looped(diffusion, x, i) for i in range(len(x))])
    return {
        "keys": np.array(list(state)),
        "shapes": np.array([" ".join(map(str, shape)) for shape in state.values()]),
        "noise": predicted.numpy(),
        "step": step.numpy(),
        "chain": chain.numpy(),
        "png": np.stack([tensor2img(image.clone()).transpose(2, 0, 1) for image in chain]),
    }


def looped(diffusion: torch.nn.Module, x: Tensor, i: int) -> Tensor:
    noises = iter([torch.from_numpy(noise(step)[i : i + 1]) for step in range(3)])

    def next_noise(*_args: object, **_options: object) -> Tensor:
        return next(noises)

    with mock.patch("torch.randn", next_noise), mock.patch("torch.randn_like", next_noise):
        return diffusion.super_resolution(x[i : i + 1])


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    sys.modules["cv2"] = mock.Mock()  # core.metrics imports it, tensor2img needs none of it
    arrays = {f"{name}_{key}": value for name, unet in UNETS.items() for key, value in golden(unet).items()}
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)
