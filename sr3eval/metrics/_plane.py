"""What of an image is scored: which channels, and how many border pixels are cut."""

from typing import Literal

from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.matlab import luma

Channel = Literal["rgb", "y"]


def plane(images: Tensor, channel: Channel, border: int) -> Tensor:
    """The scored part of [N, 3, H, W]: [N, 3 or 1, H - 2 border, W - 2 border]. UserError when nothing is left."""
    height, width = images.shape[-2:]
    if min(height, width) <= 2 * border:
        raise UserError(f"border {border} leaves nothing of {width}x{height} images")
    inner = images[..., border : height - border, border : width - border]
    return luma(inner) if channel == "y" else inner


def identity(name: str, channel: Channel, border: int) -> tuple[str, str, str]:
    """(id, variant, settings) of a metric with these options: those of different options differ."""
    if border < 0:
        raise UserError(f"{name}: border {border} is negative")
    suffix = ("_y" if channel == "y" else "") + (f"_b{border}" if border else "")
    variant = ", ".join((["Y"] if channel == "y" else []) + ([f"border {border}"] if border else []))
    channels = "BT.601 16-235 Y" if channel == "y" else "RGB"
    settings = f"{channels}, 8-bit outputs, border {border} px cut, mean over images"
    return name + suffix, variant, settings
