"""What of an image is scored: which channels, and how many border pixels are cut."""

from typing import Literal

from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.images import round_to_8bit
from sr3eval.matlab import luma

Channel = Literal["rgb", "y", "y8"]
SAID = {"rgb": "", "y": "Y", "y8": "8-bit Y"}  # in short, where variants of a metric stand in one table
SETTINGS = {"rgb": "RGB", "y": "BT.601 16-235 Y", "y8": "BT.601 16-235 Y rounded to 8 bit"}


def plane(images: Tensor, channel: Channel, border: int) -> Tensor:
    """The scored part of [N, 3, H, W]: [N, 3 or 1, H - 2 border, W - 2 border]. UserError when nothing is left."""
    height, width = images.shape[-2:]
    if min(height, width) <= 2 * border:
        raise UserError(f"border {border} leaves nothing of {width}x{height} images")
    inner = images[..., border : height - border, border : width - border]
    if channel == "rgb":
        return inner
    return luma(inner) if channel == "y" else round_to_8bit(luma(inner)).to(inner)


def identity(name: str, channel: Channel, border: int) -> tuple[str, str, str]:
    """(id, variant, settings) of a metric with these options: those of different options differ."""
    if border < 0:
        raise UserError(f"{name}: border {border} is negative")
    suffix = ("" if channel == "rgb" else f"_{channel}") + (f"_b{border}" if border else "")
    variant = ", ".join(filter(None, [SAID[channel], f"border {border}" if border else ""]))
    settings = f"{SETTINGS[channel]}, 8-bit outputs, border {border} px cut, mean over images"
    return name + suffix, variant, settings
