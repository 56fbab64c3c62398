"""What of an image is scored: which channels, and how many border pixels are cut."""

from typing import Literal

from torch import Tensor

from sr3eval.errors import UserError

Channel = Literal["rgb", "y"]


def luma(images: Tensor) -> Tensor:
    """[N, 3, H, W] in [0, 1] to [N, 1, H, W]: BT.601 luma in 16..235, as MATLAB and BasicSR have it."""
    r, g, b = images.unbind(dim=1)
    y = 65.481 * r
    for channel, weight in ((g, 128.553), (b, 24.966)):
        y += weight * channel
    return y.add_(16).div_(255).unsqueeze(1)  # in place, for the memory of large images


def plane(images: Tensor, channel: Channel, border: int) -> Tensor:
    """The scored part of [N, 3, H, W]: [N, 3 or 1, H - 2 border, W - 2 border]. UserError when nothing is left."""
    height, width = images.shape[-2:]
    if min(height, width) <= 2 * border:
        raise UserError(f"border {border} leaves nothing of {width}x{height} images")
    inner = images[..., border : height - border, border : width - border]
    return luma(inner) if channel == "y" else inner


def identity(name: str, label: str, channel: Channel, border: int) -> tuple[str, str, str]:
    """(id, label, settings) of a metric with these options: those of different options differ."""
    if border < 0:
        raise UserError(f"{name}: border {border} is negative")
    suffix = ("_y" if channel == "y" else "") + (f"_b{border}" if border else "")
    said = ", ".join((["Y"] if channel == "y" else []) + ([f"border {border}"] if border else []))
    channels = "BT.601 16-235 Y" if channel == "y" else "RGB"
    settings = f"{channels}, 8-bit outputs, border {border} px cut, mean over images"
    return name + suffix, f"{label} ({said})" if said else label, settings
