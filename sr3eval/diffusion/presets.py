"""The paper's task-specific U-Nets (TPAMI Table 1), and the small one of the embedded checkpoints.

The paper lists channel dimension, depth multipliers and blocks, and 550, 625, 625 and 150 M parameters. It does not
give the attention resolutions; attention at 16 x 16 fits the counts best.
"""

from sr3eval.diffusion.unet import UNetConfig

_64_TO_256 = UNetConfig(channels=128, multipliers=(1, 2, 4, 4, 8, 8), blocks=3, image_size=256)

PRESETS = {
    "faces_16_128": UNetConfig(channels=128, multipliers=(1, 2, 4, 8, 8), blocks=3, image_size=128, dropout=0.2),
    "faces_64_256": _64_TO_256,
    "imagenet_64_256": _64_TO_256,
    "faces_64_512": UNetConfig(channels=64, multipliers=(1, 2, 4, 8, 8, 16, 16), blocks=3, image_size=512),
    "faces_256_1024": UNetConfig(channels=16, multipliers=(1, 2, 4, 8, 16, 32, 32, 32), blocks=2, image_size=1024),
    # No attention at all: fully convolutional, so that it serves any size.
    "photos_16_64": UNetConfig(
        channels=48,
        multipliers=(1, 2, 3),
        blocks=2,
        image_size=64,
        attention=(),
        middle_attention=False,
        residual_scale=0.07,
    ),
}
