"""What made LR images: each kernel against the tool it is named after, or other code, and known again by its images."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import correlate
from skimage import data
from skimage.transform import resize

from sr3eval import matlab
from sr3eval.benchmark.kernels import KERNELS, cut, maker, makers, scale_of

PHOTO = data.coffee()[60:205, 150:400]
SCALES = pytest.mark.parametrize("scale", [2, 3, 4])


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def photo(scale: int) -> torch.Tensor:
    return cut(tensor(PHOTO), scale)


def made(kernel: str, scale: int) -> torch.Tensor:
    hr = photo(scale)
    return KERNELS[kernel](hr, (hr.shape[1] // scale, hr.shape[2] // scale))


def by_opencv(image: np.ndarray, scale: int, kernel: int) -> np.ndarray:
    return cv2.resize(image, None, fx=1 / scale, fy=1 / scale, interpolation=kernel)


def by_pillow(image: np.ndarray, scale: int, kernel: Image.Resampling) -> np.ndarray:
    size = (image.shape[1] // scale, image.shape[0] // scale)
    return np.asarray(Image.fromarray(image).resize(size, kernel))


def in_floats(image: np.ndarray, scale: int) -> np.ndarray:
    """Pillow's bicubic of float images."""
    channels = [
        by_pillow(channel.astype(np.float32), scale, Image.Resampling.BICUBIC) for channel in image.transpose(2, 0, 1)
    ]
    return np.stack(channels, -1).round().clip(0, 255).astype(np.uint8)


def replicated(image: np.ndarray, scale: int) -> np.ndarray:
    """Keys' cubic, stretched, of the image continued by its border: rows, then columns, rounded after each."""
    for _ in range(2):
        wide = np.concatenate([image[:1]] * 4 * scale + [image] + [image[-1:]] * 4 * scale).astype(float)
        centres = (np.arange(len(image) // scale) + 0.5) * scale - 0.5 + 4 * scale
        x = np.abs(np.arange(len(wide)) - centres[:, None]) / scale
        weights = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2) * (x < 2)
        image = np.floor(np.tensordot(weights / weights.sum(1, keepdims=True), wide, 1).clip(0, 255) + 0.5).swapaxes(
            0, 1
        )
    return image.astype(np.uint8)


def blurred(image: np.ndarray, scale: int) -> np.ndarray:
    x = np.arange(-3, 4)
    gaussian = np.exp(-(x[:, None] ** 2 + x**2) / (2 * 1.6**2))
    levels = correlate(image.astype(float), (gaussian / gaussian.sum())[..., None], mode="nearest")
    return np.floor(levels + 0.5)[scale // 2 :: scale, scale // 2 :: scale].astype(np.uint8)


OTHERS = {
    "MATLAB's imresize with a replicated border": replicated,
    "OpenCV's bicubic, torch's without antialiasing": lambda image, s: by_opencv(image, s, cv2.INTER_CUBIC),
    "OpenCV's area averaging": lambda image, s: by_opencv(image, s, cv2.INTER_AREA),
    "Pillow's reduce": lambda image, s: np.asarray(Image.fromarray(image).reduce(s)),
    "Pillow's bicubic": lambda image, s: by_pillow(image, s, Image.Resampling.BICUBIC),
    "Pillow's Lanczos": lambda image, s: by_pillow(image, s, Image.Resampling.LANCZOS),
    "torch's and TensorFlow's bicubic with antialiasing": in_floats,
    "Gaussian blur of 1.6 pixels, then the middle pixel (BD)": blurred,
}
AREA = {"OpenCV's area averaging", "Pillow's reduce"}  # the same of four pixels, where halves go up in both


@SCALES
@pytest.mark.parametrize("kernel", OTHERS)
def test_a_kernel_is_what_its_tool_does(kernel, scale):
    other = tensor(OTHERS[kernel](photo(scale).permute(1, 2, 0).numpy(), scale))
    assert torch.equal(made(kernel, scale), other)


@SCALES
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_is_known_by_its_image(kernel, scale):
    hr = tensor(PHOTO)  # whose sides the scale does not divide
    found = makers(hr, made(kernel, scale))
    assert scale_of(hr.shape[1:], made(kernel, scale).shape[1:]) == scale
    assert kernel in [one.kernel for one in found] and found[0].distance == 0
    assert len(found) == 1 or (scale == 2 and {one.kernel for one in found} == AREA)


def test_what_no_kernel_makes_is_near_to_some():
    hr = photo(2)
    size = (hr.shape[1] // 2, hr.shape[2] // 2)
    lr = tensor((resize(hr.permute(1, 2, 0).numpy(), size, order=3, anti_aliasing=True) * 255).round().astype(np.uint8))
    found = maker([(hr, lr), (hr, lr)])
    assert found.exact == 0 and found.distance > 0.2


def test_a_set_has_the_kernel_of_most_images():
    """A flat image says nothing, a retouched one is near, and one of another kernel is outvoted."""
    hr, kernel = photo(2), "Pillow's bicubic"
    flat, retouched = torch.full_like(hr, 77), made(kernel, 2)
    retouched[:, 50, 100] ^= 255
    others = [(flat, flat[:, ::2, ::2]), (hr, retouched), (hr, matlab.imresize(hr, 0.5))]
    found = maker([(hr, made(kernel, 2)), *others])
    assert (found.kernel, found.exact) == (kernel, 2)
    assert 0 < found.distance < 0.05
