"""The degradations, against SciPy, Pillow and their moments."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage import data

from sr3eval import degradation, matlab
from sr3eval.degradation import Blur, Jpeg, Noise, Resize, degrade, described, parse
from sr3eval.errors import UserError
from sr3eval.images import area_down, bicubic_down, from_uint8, to_uint8

PHOTO = data.astronaut()[60:157, 120:248]
IMAGE = from_uint8(torch.from_numpy(PHOTO.copy()).permute(2, 0, 1))
FLOAT32 = 2e-6  # what sums of some hundred products round to
GREY = torch.full((3, 100, 100), 0.5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("border", "mode"), [("reflect", "reflect"), ("replicate", "nearest")])
@pytest.mark.parametrize("size", [7, 21])
def test_an_even_blur_is_scipy_s(border, mode, size):
    blurred = Blur(1.6, size=size, border=border)(IMAGE, generator())
    for channel, plane in zip(blurred.numpy(), IMAGE.numpy().astype(np.float64), strict=True):
        expected = ndimage.gaussian_filter(plane, 1.6, mode=mode, radius=size // 2)
        assert np.abs(channel - expected).max() < FLOAT32


def test_by_default_a_blur_reaches_to_4_sigma():
    expected = ndimage.gaussian_filter(IMAGE[0].double().numpy(), 2.0, mode="reflect", truncate=4)
    assert np.abs(Blur(2.0)(IMAGE, generator())[0].numpy() - expected).max() < FLOAT32


def test_two_sigmas_lie_along_x_and_y_and_turn_clockwise():
    """In SciPy the sigma of the rows comes first; a quarter turn swaps the two."""
    plane = IMAGE[0].double().numpy()
    expected = ndimage.gaussian_filter(plane, (0.8, 3.0), mode="reflect", radius=10)
    for step in (Blur(3.0, 0.8, size=21), Blur(0.8, 3.0, angle=90.0, size=21)):
        assert np.abs(step(IMAGE, generator())[0].numpy() - expected).max() < FLOAT32
    point = torch.zeros(3, 21, 21)
    point[:, 10, 10] = 1
    turned = Blur(3.0, 0.8, angle=30.0, size=21)(point, generator())[0]
    y, x = torch.meshgrid(torch.arange(-10.0, 11), torch.arange(-10.0, 11), indexing="ij")
    main = 0.5 * torch.atan2(2 * (turned * x * y).sum(), (turned * (x * x - y * y)).sum())
    assert torch.rad2deg(main).item() == pytest.approx(30, abs=0.1)  # y points down: clockwise


def test_a_blur_of_sigma_0_changes_nothing_and_the_kernel_is_fspecial_s():
    assert torch.equal(Blur(0.0, size=7)(IMAGE, generator()), IMAGE)
    kernel = degradation.gaussian(1.6, 1.6, 0.0, 3)
    # fspecial("gaussian", 7, 1.6): exp(-(x^2 + y^2) / 5.12), of sum 1
    assert kernel[3, 3] / kernel[0, 1] == pytest.approx(np.exp(13 / 5.12))
    assert kernel.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("quality", [10, 30, 95])
def test_jpeg_is_pillow_s_round_trip(quality):
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "JPEG", quality=quality)
    found = to_uint8(Jpeg(quality)(IMAGE, generator()))
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.array(Image.open(file)))


def test_gaussian_noise_has_its_sigma_in_levels():
    noise = (Noise(sigma=10.0)(GREY, generator()) - GREY) * 255
    assert noise.std().item() == pytest.approx(10, rel=0.02) and abs(noise.mean().item()) < 0.2
    assert abs(torch.corrcoef(noise.flatten(1))[0, 1].item()) < 0.03


@pytest.mark.parametrize(("level", "strength"), [(0.2, 1.0), (0.5, 1.0), (0.5, 0.5)])
def test_poisson_noise_has_the_variance_of_its_signal(level, strength):
    image = torch.full((3, 100, 100), level)
    levels = Noise(poisson=strength)(image, generator()) * 255
    assert levels.mean().item() == pytest.approx(255 * level, rel=0.01)
    assert levels.var().item() == pytest.approx(255 * level * strength**2, rel=0.03)


@pytest.mark.parametrize("noise", [Noise(sigma=10.0, grey=True), Noise(poisson=1.0, grey=True)])
def test_grey_noise_is_that_of_all_channels(noise):
    added = noise(GREY, generator()) - GREY
    assert added.std() > 0 and torch.equal(added[0], added[1]) and torch.equal(added[0], added[2])


def test_noise_is_clamped():
    noisy = Noise(sigma=80.0)(torch.ones(3, 20, 20), generator())
    assert noisy.max() == 1 and 0 <= noisy.min() < 1


@pytest.mark.parametrize("size", [(24, 32), (30, 41)])
def test_resizes_are_their_operators(size):
    area = area_down(IMAGE, size)
    resized = {kernel: Resize(kernel, size=size)(IMAGE, generator()) for kernel in ("bicubic", "matlab", "area")}
    assert torch.equal(resized["area"], area)
    assert torch.equal(resized["bicubic"], bicubic_down(IMAGE[None], size)[0].clamp(0, 1))
    assert torch.equal(resized["matlab"], matlab.imresize(IMAGE, size).clamp(0, 1))
    plane = Image.fromarray(IMAGE[0].numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    bilinear = Resize("bilinear", size=size)(IMAGE, generator())[0]
    assert np.abs(bilinear.numpy() - np.asarray(plane)).max() < FLOAT32


def test_the_nearest_pixel_is_the_central_one_and_factors_are_rounded():
    third = Resize("nearest", factor=1 / 3)(IMAGE[:, :96, :126], generator())
    assert torch.equal(third, IMAGE[:, 1:96:3, 1:126:3])
    assert Resize(factor=0.5)(IMAGE, generator()).shape == (3, round(97 / 2), 64)


CHAIN = [
    {"kind": "blur", "sigma": [0.2, 3.0], "sigma_y": [0.2, 3], "angle": [0, 180], "size": 13},
    {"kind": "resize", "kernel": "bilinear", "factor": [0.5, 0.9]},
    {"kind": "noise", "sigma": [1, 30]},
    {"kind": "resize", "kernel": "matlab"},
    {"kind": "noise", "poisson": [0.5, 2.0], "grey": True},
    {"kind": "jpeg", "quality": [30, 95]},
]


def test_an_image_s_seed_makes_its_bytes_whatever_came_before():
    steps = parse(CHAIN)
    alone = {seed: degrade(IMAGE, steps, (24, 32), seed) for seed in (1, 2, 3)}
    torch.manual_seed(5)
    torch.rand(7)
    again = {seed: degrade(IMAGE, parse(CHAIN), (24, 32), seed) for seed in (3, 1, 2)}
    assert all(torch.equal(alone[seed], again[seed]) for seed in alone)
    assert alone[1].shape == (3, 24, 32) and not torch.equal(alone[1], alone[2])
    assert alone[1].dtype == torch.float32 and 0 <= alone[1].min() <= alone[1].max() <= 1


def test_ranges_are_drawn_evenly():
    """Read back from constant images, whose noise has the drawn sigma."""
    noise = Noise(sigma=(10.0, 30.0))
    drawn = torch.tensor([(noise(GREY, generator(seed)) - GREY).std().item() * 255 for seed in range(200)])
    assert 9.5 < drawn.min() < 11.5 and 28.5 < drawn.max() < 31
    assert drawn.mean().item() == pytest.approx(20, abs=1.5)
    qualities = {to_uint8(Jpeg((40, 42))(IMAGE, generator(seed))).sum().item() for seed in range(30)}
    assert qualities == {to_uint8(Jpeg(quality)(IMAGE, generator())).sum().item() for quality in (40, 41, 42)}


def test_a_chain_has_a_text_and_a_repr():
    steps = parse(
        [{"kind": "blur", "sigma": 1.6}, {"kind": "resize", "kernel": "matlab"}, {"kind": "jpeg", "quality": 30}]
    )
    assert described(steps) == "Gaussian blur sigma 1.6, then matlab bicubic, then JPEG 30"
    assert repr(steps) == (
        "(Blur(sigma=1.6, sigma_y=None, angle=0.0, size=None, border='reflect'), "
        "Resize(kernel='matlab', factor=None, size=None), Jpeg(quality=30))"
    )
    assert described(parse(CHAIN)) == (
        "Gaussian blur sigma 0.2 to 3 by 0.2 to 3 at 0 to 180 degrees, 13x13, then bilinear by 0.5 to 0.9, then "
        "Gaussian noise sigma 1 to 30, then matlab bicubic, then grey Poisson noise 0.5 to 2, then JPEG 30 to 95"
    )


def test_a_chain_must_end_in_the_task_s_size():
    with pytest.raises(UserError, match='ends in 128x97 and not 32x24 pixels; add a step of kind "resize"'):
        degrade(IMAGE, parse([{"kind": "blur", "sigma": 1}]), (24, 32), 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, 'missing key "degradation[0].kind": blur, noise, jpeg, resize'),
        ({"kind": "blr"}, '"degradation[0].kind" is \'blr\': did you mean "blur"?'),
        ({"kind": "blur"}, 'missing key "degradation[0].sigma"'),
        ({"kind": "blur", "sgma": 1}, 'unknown key "degradation[0].sgma": did you mean "sigma"?'),
        ({"kind": "blur", "sigma": [3, 1]}, "blur.sigma: 3 to 1 must be at least 0, lowest first"),
        ({"kind": "blur", "sigma": [3, 1, 2]}, "blur.sigma: [3.0, 1.0, 2.0] is neither a number nor [low, high]"),
        ({"kind": "blur", "sigma": 1, "size": 4}, "blur.size: 4 is not odd and positive"),
        ({"kind": "jpeg", "quality": 101}, "jpeg.quality: 101 must be from 1 to 100"),
        ({"kind": "noise"}, "noise: give either sigma, in levels of 255, or poisson, a strength"),
        ({"kind": "noise", "sigma": float("nan")}, "noise.sigma: nan must be at least 0"),
        ({"kind": "resize", "kernel": "lanczs"}, "\"degradation[0].kernel\" is 'lanczs': valid: area, bicubic"),
        ({"kind": "resize", "factor": 0}, "resize.factor: 0 must be at least 0.001"),
        ({"kind": "resize", "factor": 0.5, "size": [4, 4]}, "resize: give either factor or size"),
        ({"kind": "resize", "size": [4]}, "resize.size: [4] is not [height, width] in pixels"),
        (3, '"degradation[0]" must be a table, not 3'),
    ],
)
def test_errors_say_what_to_do(table, message):
    with pytest.raises(UserError) as error:
        parse([table])
    assert str(error.value).startswith(message)
