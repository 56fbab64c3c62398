"""The image convention, against Pillow, scikit-image and brute force."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from skimage.transform import downscale_local_mean

from sr3eval import images
from sr3eval.errors import UserError


def astronaut() -> torch.Tensor:
    return images.from_uint8(torch.from_numpy(data.astronaut()).permute(2, 0, 1))


@pytest.mark.parametrize(("size", "name"), [((128, 128), "down"), ((37, 91), "down"), ((777, 1024), "up")])
def test_bicubic_equals_pillow_mode_f(size, name):
    image = astronaut()
    ours = getattr(images, f"bicubic_{name}")(image[None], size)[0]
    theirs = [np.asarray(Image.fromarray(c.numpy()).resize(size[::-1], Image.Resampling.BICUBIC)) for c in image]
    assert np.abs(ours.numpy() - np.stack(theirs)).max() < (
        4e-6 if name == "down" else 2e-5
    )  # 1e-3 of a level for what D does


def test_area_equals_local_mean_for_whole_factors():
    image = astronaut()
    expected = downscale_local_mean(image.numpy(), (1, 8, 4))
    assert np.abs(images.area_down(image, (64, 128)).numpy() - expected).max() < 1e-6


@given(length=st.integers(2, 40), target=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_area_weighs_pixels_by_their_exact_share(length, target):
    """n -> m is exact when every pixel is first repeated m times and then averaged in blocks of n."""
    target = min(length, target)
    row = torch.arange(length, dtype=torch.float64)[None, None] ** 2
    expected = row.repeat_interleave(target, dim=-1).reshape(1, 1, target, length).mean(-1)
    torch.testing.assert_close(images.area_down(row, (1, target)), expected)


def test_rounds_and_never_truncates():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(images.to_uint8(images.from_uint8(levels)), levels)
    assert torch.equal(images.to_uint8(images.from_signed(images.to_signed(images.from_uint8(levels)))), levels)
    assert images.to_uint8(torch.tensor([0.6 / 255, -1.0, 2.0])).tolist() == [1, 0, 255]


def test_png_round_trip_is_exact(tmp_path):
    image = torch.randint(0, 256, (3, 9, 5), dtype=torch.uint8)
    images.save(tmp_path / "deep" / "a.png", image)
    assert torch.equal(images.to_uint8(images.load(tmp_path / "deep" / "a.png")), image)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]


def gradient(mode: str) -> Image.Image:
    return Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5).convert(mode)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB"])
def test_modes_become_rgb(tmp_path, mode):
    gradient(mode).save(tmp_path / "a.png")
    expected = torch.from_numpy(np.array(gradient(mode).convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(images.to_uint8(images.load(tmp_path / "a.png")), expected)


def test_sixteen_bit_grey_keeps_its_precision(tmp_path):
    values = np.array([[0, 1, 257, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    torch.testing.assert_close(images.load(tmp_path / "a.png")[0], torch.tensor(values / 65535, dtype=torch.float32))


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path):
    opaque = gradient("RGB").convert("RGBA")
    opaque.save(tmp_path / "opaque.png")
    assert images.load(tmp_path / "opaque.png").shape == (3, 6, 8)
    opaque.putpixel((0, 0), (1, 2, 3, 0))
    opaque.save(tmp_path / "glass.png")
    with pytest.raises(UserError, match=r"glass\.png: has transparent pixels"):
        images.load(tmp_path / "glass.png")


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    gradient("RGB").save(tmp_path / "a.jpg", exif=exif, quality=100)
    assert images.load(tmp_path / "a.jpg").shape == (3, 8, 6)
    assert images.header_size(tmp_path / "a.jpg") == (8, 6)


def test_bad_files_are_named(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).save(buffer, "PNG")
    (tmp_path / "half.png").write_bytes(buffer.getvalue()[:20000])
    (tmp_path / "text.png").write_text("not an image")
    gradient("RGB").convert("CMYK").save(tmp_path / "cmyk.jpg")
    for name, message in [("half", "truncated"), ("text", "not a readable"), ("absent", "no such file")]:
        with pytest.raises(UserError, match=rf"{name}\.png: .*{message}"):
            images.load(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"cmyk\.jpg: colour mode CMYK"):
        images.load(tmp_path / "cmyk.jpg")
