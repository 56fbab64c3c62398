"""Writes embedded.npz: what the embedded SR3 and Regression give for one noisy crop a level.

What the committed file has of SR3 is of the version before `sr3eval.diffusion.preconditioners`; Regression's weights
are newer. Write it again only with new weights.
"""

from pathlib import Path

import numpy as np
import torch

from sr3eval.diffusion import checkpoint
from sr3eval.images import bicubic_up, load, to_signed

SIDE = 24


def model(name):
    return checkpoint.load(f"sr3eval:assets/{name}_photos_16_64.safetensors", name).model()


@torch.inference_mode()
def main():
    crop = sorted((Path(checkpoint.__file__).parents[1] / "assets" / "photos_16_64" / "astronaut").glob("*.png"))[0]
    hr = to_signed(load(crop)[None, :, :SIDE, :SIDE])
    x = to_signed(bicubic_up(torch.nn.functional.avg_pool2d(hr / 2 + 0.5, 4), (SIDE, SIDE))).expand(3, -1, -1, -1)
    gamma = torch.tensor([0.1, 0.9, 0.999])
    g = gamma[:, None, None, None]
    y = g.sqrt() * hr + (1 - g).sqrt() * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = {"x": x, "y": y, "gamma": gamma, "sr3": model("sr3")(x, y, gamma), "regression": model("regression")(x)}
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **{name: t.numpy() for name, t in found.items()})


if __name__ == "__main__":
    main()
