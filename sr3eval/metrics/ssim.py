"""Structural similarity (Wang et al. 2004)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.metrics import PerImage
from sr3eval.metrics._plane import Channel, identity, plane

TAPS, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # for a data range of 1


def ssim(sr: Tensor, hr: Tensor) -> Tensor:
    """SSIM, [N], of [N, C, H, W] in [0, 1]: Gaussian 11x11 window of sigma 1.5, valid area, mean over channels.

    May be negative. Equals `tf.image.ssim`, and scikit-image's with gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1 over the area where the window fits.
    """
    if min(sr.shape[-2:]) < TAPS:
        raise UserError(f"ssim: {sr.shape[-1]}x{sr.shape[-2]} images are smaller than its {TAPS}x{TAPS} window")
    # With s = x + y and d = x - y: 2 cov(x, y) = (var s - var d) / 2 and var x + var y = (var s + var d) / 2, and
    # likewise for the means. Where the images agree, float32 rounding of the large s then cancels; so it does on flat
    # areas with s taken about its mean. And there are four maps to blur, not five.
    center = hr.mean(dim=(-2, -1), keepdim=True)
    s, d = sr + hr - 2 * center, sr - hr
    mean_s, mean_d, ss, dd = _blur(torch.stack([s, d, s * s, d * d]))
    var_s, var_d = ss - mean_s**2, dd - mean_d**2
    mean_s = mean_s + 2 * center
    luminance = (mean_s**2 - mean_d**2 + 2 * C1) / (mean_s**2 + mean_d**2 + 2 * C1)
    structure = (var_s - var_d + 2 * C2) / (var_s + var_d + 2 * C2)
    return (luminance * structure).flatten(1).mean(dim=1)


def _blur(images: Tensor) -> Tensor:
    """Gaussian window over the last two dimensions, valid area: [..., H, W] to [..., H - 10, W - 10]."""
    offsets = torch.arange(TAPS, dtype=torch.float64) - TAPS // 2
    window = torch.softmax(-(offsets**2) / (2 * SIGMA**2), dim=0).to(images)
    flat = images.flatten(0, -3).unsqueeze(1)
    rows = F.conv2d(flat, window.view(1, 1, -1, 1))
    return F.conv2d(rows, window.view(1, 1, 1, -1)).view(*images.shape[:-2], *(s - TAPS + 1 for s in images.shape[-2:]))


def build(*, channel: Channel = "rgb", border: int = 0) -> PerImage:
    """SSIM of RGB or of luma ("y"), with `border` pixels cut on each side."""
    name, settings = identity("ssim", channel, border)
    settings = settings.replace(", mean", ", Gaussian 11x11 sigma 1.5, valid area, mean")
    return PerImage(name, lambda b: ssim(plane(b.sr, channel, border), plane(b.hr, channel, border)), True, settings)
