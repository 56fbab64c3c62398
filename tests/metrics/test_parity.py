"""Every per-image number against an independent implementation."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.utils._python_dispatch import TorchDispatchMode

from sr3eval.errors import UserError
from sr3eval.images import bicubic_down
from sr3eval.matlab import luma
from sr3eval.metrics import _plane
from sr3eval.metrics.consistency import consistency
from sr3eval.metrics.psnr import psnr
from sr3eval.metrics.ssim import ssim


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(sr, hr) pairs, [H, W, 3] uint8: photographs, noise, flat and constant images, opposites."""
    rng = np.random.default_rng(0)
    photo = data.astronaut()[100:196, 100:228]
    noisy = np.clip(photo + rng.normal(0, 12, photo.shape), 0, 255).astype(np.uint8)
    halves = np.zeros_like(photo)
    halves[:, 64:] = 255
    return {
        "photo": (noisy, photo),
        "noise": (rng.integers(0, 256, photo.shape, np.uint8), photo),
        "flat": (np.full_like(photo, 200), np.full_like(photo, 201)),
        "white": (np.full_like(photo, 255), np.full_like(photo, 255)),
        "halves": (np.clip(halves.astype(int) + 3, 0, 255).astype(np.uint8), halves),
        "inverted": (255 - photo, photo),
    }


def tensors(name: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    sr, hr = (torch.from_numpy(image).permute(2, 0, 1)[None].to(dtype) / 255 for image in pairs()[name])
    return sr, hr


@pytest.mark.parametrize("name", pairs())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_psnr_and_ssim_equal_scikit_image(name, dtype, tolerance):
    sr, hr = tensors(name, dtype)
    a, b = (image.astype(np.float64) / 255 for image in pairs()[name])
    with np.errstate(divide="ignore"):
        expected = peak_signal_noise_ratio(b, a, data_range=1)
    assert psnr(sr, hr).dtype == dtype
    assert psnr(sr, hr).item() == pytest.approx(expected, rel=tolerance)
    _, full = structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=2, full=True
    )
    assert ssim(sr, hr).dtype == dtype
    assert ssim(sr, hr).item() == pytest.approx(full[5:-5, 5:-5].mean(), abs=tolerance)


def test_ssim_may_be_negative_and_needs_room():
    assert ssim(*tensors("inverted", torch.float32)) < 0
    with pytest.raises(UserError, match="10x20 images are smaller than its 11x11 window"):
        ssim(torch.zeros(1, 3, 20, 10), torch.zeros(1, 3, 20, 10))


def test_identical_images_have_infinite_psnr():
    assert psnr(*tensors("white", torch.float32)).item() == np.inf


def test_luma_is_bt601_with_footroom():
    white, black, red = (torch.tensor(c).view(1, 3, 1, 1) for c in ([1.0, 1, 1], [0.0, 0, 0], [1.0, 0, 0]))
    levels = [(luma(image) * 255).item() for image in (white, black, red)]
    assert levels == pytest.approx([235, 16, 81.481], abs=1e-3)


def test_border_and_luma_options_change_what_is_scored():
    image = torch.rand(1, 3, 8, 10)
    assert torch.equal(_plane.plane(image, "rgb", 2), image[..., 2:6, 2:8])
    assert _plane.plane(image, "y", 0).shape == (1, 1, 8, 10)
    with pytest.raises(UserError, match="border 4 leaves nothing of 10x8 images"):
        _plane.plane(image, "rgb", 4)


def test_consistency_is_the_mse_to_pillow_s_mode_f_downsampling():
    photo = data.astronaut().astype(np.float32) / 255
    shrunk = [np.asarray(Image.fromarray(photo[..., c]).resize((64, 64), Image.Resampling.BICUBIC)) for c in range(3)]
    lr = np.random.default_rng(0).random((3, 64, 64), np.float32)
    expected = ((np.stack(shrunk) - lr) ** 2).mean()
    value = consistency(torch.from_numpy(photo).permute(2, 0, 1)[None], torch.from_numpy(lr)[None])
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_consistency_neither_rounds_nor_clamps():
    """An 8-bit LR image of a smooth HR image leaves the rounding error, and overshoots count."""
    hr = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    exact = bicubic_down(hr, (16, 16))
    assert consistency(hr, exact).item() == 0
    assert 0 < consistency(hr, (exact * 255).round() / 255).item() < (0.5 / 255) ** 2
    checker = torch.zeros(1, 3, 64, 64)
    checker[..., 32:] = 1
    overshooting = bicubic_down(checker, (16, 16))
    assert overshooting.max() > 1
    assert consistency(checker, overshooting.clamp(0, 1)).item() > 0


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made inside, in bytes."""

    def __init__(self, *given):
        super().__init__()
        self.given = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        storage = made.untyped_storage() if isinstance(made, torch.Tensor) else None
        if storage is not None and storage.data_ptr() not in self.given:
            self.bytes = max(self.bytes, storage.nbytes())
        return made


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_memory_does_not_grow_with_the_height(metric):
    sizes = []
    for height in (200, 2000):
        sr, hr = torch.rand(2, 1, 3, height, 90).unbind()
        with Largest(sr, hr) as largest:
            metric(sr, hr)
        sizes.append(largest.bytes)
    assert sizes[0] == sizes[1] <= 4 * 8 * 74 * 90
