"""Evaluation protocols: which metrics the field's tables hold, and by which conventions they are computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sr3eval.errors import UserError, nearest

SCALE = "scale"  # as a value of `border`: as many pixels as the task enlarges times

Metrics = Sequence[tuple[str, Mapping[str, Any]]]  # (name, options), as `metrics.load` takes them


@dataclass(frozen=True)
class Protocol:
    """metrics: (name, options) of those that are run where the config names none.

    options: by metric, what it gets where the config says nothing else.
    """

    name: str
    described: str
    metrics: Metrics
    options: Mapping[str, Mapping[str, Any]]

    def apply(self, metrics: Metrics = ()) -> Metrics:
        """The metrics, or the protocol's own where there are none, with the protocol's options below theirs."""
        return [(name, {**self.options.get(name, {}), **options}) for name, options in metrics or self.metrics]


def get(name: str) -> Protocol:
    """The protocol of that name; raises UserError naming the nearest one."""
    if name not in PROTOCOLS:
        raise UserError(f'unknown protocol "{name}": {nearest(name, PROTOCOLS)}')
    return PROTOCOLS[name]


def resolve(metrics: Metrics, scale: int) -> list[tuple[str, dict[str, Any]]]:
    """The metrics with `border = "scale"` as a number of pixels."""
    border = {"border": scale}
    return [(name, dict(options) | (border if options.get("border") == SCALE else {})) for name, options in metrics]


def _fidelity(channel: str, border: int | str) -> dict[str, dict[str, Any]]:
    """Options of PSNR and SSIM."""
    return {name: {"channel": channel, "border": border} for name in ("psnr", "ssim")}


_QUALITY = [
    Protocol(
        "paper",
        "SR3 (Saharia et al. 2021): PSNR and SSIM of RGB, no border cut, and consistency with the input",
        metrics=[("psnr", {}), ("ssim", {}), ("consistency", {})],
        options=_fidelity("rgb", 0),
    ),
    Protocol(
        "classic",
        "Set5, Set14, Urban100 ... since SRCNN, and NTIRE 2025's restoration track: PSNR and SSIM of BT.601 Y, as many "
        "border pixels cut as the scale",
        metrics=[("psnr", {}), ("ssim", {})],
        options=_fidelity("y", SCALE),
    ),
    # test_demo.py of github.com/Amazingren/NTIRE2024_ESR: calculate_psnr of RGB, border = 4 at x4.
    Protocol(
        "ntire",
        "NTIRE's efficient super-resolution track: PSNR and SSIM of RGB, as many border pixels cut as the scale",
        metrics=[("psnr", {}), ("ssim", {})],
        options=_fidelity("rgb", SCALE),
    ),
    # evaluate.py of AdcSR, and the tables of StableSR, SeeSR, OSEDiff ...: pyiqa's psnr and ssim with test_y_channel
    # and color_space "ycbcr", the others by name alone. It rounds SSIM's Y to 8 bit, not PSNR's; its NIQE is of YIQ's.
    Protocol(
        "realsr-2024",
        "real-world super-resolution by diffusion since 2024, by pyiqa's calls: PSNR and SSIM of Y without a border "
        "cut, LPIPS, DISTS, FID (clean-fid's resize), NIQE, MANIQA (PIPAL), MUSIQ, CLIP-IQA",
        metrics=[
            *(("psnr", {}), ("ssim", {}), ("lpips", {}), ("dists", {}), ("fid", {}), ("niqe", {})),
            *(("pyiqa", {"metric": metric}) for metric in ("maniqa-pipal", "musiq", "clipiqa")),
        ],
        options={
            "psnr": {"channel": "y"},
            "ssim": {"channel": "y8"},
            "fid": {"resize": "clean"},
            "niqe": {"luma": "yiq"},
        },
    ),
    # eval.py of github.com/zhengchen1999/NTIRE2025_ImageSR_x4.
    Protocol(
        "ntire-2025-perceptual",
        "NTIRE 2025 image super-resolution ×4, perceptual track: its score and the metrics that it is of",
        metrics=[
            *(("ntire_2025_score", {}), ("lpips", {}), ("dists", {})),
            *(("pyiqa", {"metric": metric}) for metric in ("clipiqa", "maniqa", "musiq")),
            ("niqe", {}),
        ],
        options={"niqe": {"luma": "yiq"}},
    ),
]
PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _QUALITY}
