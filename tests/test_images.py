"""The image convention, against Pillow, scikit-image and brute force."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from skimage import data
from skimage.transform import downscale_local_mean
from torchvision.io import ImageReadMode, decode_image

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


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(channels: int) -> bytes:
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep(channels))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 3, 16, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep(channels: int, dtype: str = "u2") -> np.ndarray:
    values = np.array([[0, 1], [255, 257], [32768, 65535]])
    return np.repeat(values[..., None], channels, axis=2).squeeze(2 if channels == 1 else ()).astype(dtype)


def tiff(values: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def encode(format: str, image: Image.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    (image or gradient("RGB")).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        png16(1),
        tiff(deep(1)),
        tiff(deep(1), byteorder=">"),
        tiff(deep(1), compression="deflate"),
    ],
    ids=["png", "tiff", "big_endian", "deflate"],
)
def test_sixteen_bit_grey_keeps_its_precision(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    expected = torch.tensor(deep(1, "f4") / 65535)
    torch.testing.assert_close(images.load(tmp_path / "a"), expected.expand(3, -1, -1))


def refused(path, content: bytes, message: str) -> None:
    """Both readers refuse the file by the same line."""
    path.write_bytes(content)
    for read in (images.load, images.header_size):
        with pytest.raises(UserError, match=f"^{path}: {message}; save it as 8-bit PNG$"):
            read(path)


@pytest.mark.parametrize(
    "content",
    [
        png16(3),
        png16(4),
        png16(2),
        tiff(deep(3), photometric="rgb"),
        tiff(deep(3), photometric="rgb", byteorder=">"),
        tiff(deep(3), photometric="rgb", compression="deflate"),
        tiff(deep(3).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        b"P6 2 3 65535\n" + deep(3).astype(">u2").tobytes(),
    ],
    ids=["rgb", "rgba", "la", "tiff", "big_endian", "deflate", "planar", "ppm"],
)
def test_sixteen_bit_colour_is_refused_as_pillow_would_truncate_it(tmp_path, content):
    refused(tmp_path / "a", content, "neither 8-bit colour nor 8- or 16-bit grey")


@pytest.mark.parametrize(
    "content",
    [
        tiff(deep(1, "i4")),
        tiff(deep(1, "u4")),
        tiff(deep(1, "i2")),
        tiff(deep(1, "f4")),
        tiff(deep(1), photometric="miniswhite"),
        tiff(deep(1)).replace(struct.pack("<HHII", 258, 3, 1, 16), struct.pack("<HHII", 258, 3, 1, 12)),
        b"P5 2 3 65535\n" + deep(1).astype(">u2").tobytes(),
        b"P5 2 1 4095\n" + struct.pack(">HH", 0, 4095),
        b"P5 2 1 15\n\x00\x0f",
        b"P2 2 1 15\n0 15\n",
    ],
    ids=["int32", "uint32", "int16", "float32", "inverted", "12_bit", "pgm_16", "pgm_12", "pgm_4", "pgm_4_plain"],
)
def test_grey_of_another_scale_is_refused(tmp_path, content):
    refused(tmp_path / "a", content, "neither 8-bit colour nor 8- or 16-bit grey")


@pytest.mark.parametrize("format", ["JPEG2000", "SGI", *["AVIF"] * features.check("avif")])
def test_formats_that_hide_their_depth_are_refused(tmp_path, format):
    refused(tmp_path / "a", encode(format), f"{format} is not supported, since its bit depth cannot be told")


@pytest.mark.parametrize("content", [b"P5 2 1 255\n\x00\x33", b"P2 2 1 255\n0 51\n"], ids=["binary", "plain"])
def test_eight_bit_pgm_is_read(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert images.load(tmp_path / "a")[:, 0].tolist() == [[0, torch.tensor(0.2).item()]] * 3


def test_sixteen_bits_a_pixel_are_not_sixteen_a_channel(tmp_path):
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    header = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 3, 4, 0, 0, 0, 0) + masks
    pixel = struct.pack("<HH", 0xF800, 0)
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<III", 70, 0, 66) + header + pixel)
    assert images.load(tmp_path / "a.bmp").flatten().tolist() == [1, 0, 0]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_are_refused_and_counted(tmp_path, format):
    others = [gradient("RGB").rotate(90), gradient("RGB").rotate(180)]
    (tmp_path / "a").write_bytes(encode(format, save_all=True, append_images=others))
    with pytest.raises(UserError, match="a: has 3 frames"):
        images.load(tmp_path / "a")


def test_a_single_frame_and_a_cameras_previews_are_not_several(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode("MPO", save_all=True, append_images=[gradient("RGB").rotate(90)]))
    assert Image.open(tmp_path / "a.jpg").n_frames == 2
    for format in ("GIF", "WEBP"):
        (tmp_path / f"a.{format}").write_bytes(encode(format))
    assert {images.load(path).shape for path in tmp_path.iterdir()} == {(3, 6, 8)}


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


def test_header_size_reads_no_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for options, size in ({}, (512, 400)), ({"exif": exif}, (400, 512)):
        content = encode("PNG", Image.fromarray(data.astronaut()[:, :400]), **options)
        (tmp_path / "a.png").write_bytes(content[: content.index(b"IDAT") + 100])
        assert images.header_size(tmp_path / "a.png") == size


@pytest.mark.parametrize("orientation", [1, 2, 5, 8, 9])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_header_size_is_the_loaded_size(tmp_path, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a").write_bytes(encode(format, exif=exif))
    assert images.header_size(tmp_path / "a") == images.load(tmp_path / "a").shape[1:]


def test_orientation_behind_the_pixels_counts_nowhere(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode("PNG")
    (tmp_path / "a.png").write_bytes(content[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + content[-12:])
    assert images.header_size(tmp_path / "a.png") == images.load(tmp_path / "a.png").shape[1:] == (6, 8)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "JPEG2000"])
def test_damaged_files_raise_nothing_but_user_errors(tmp_path, format):
    whole, chance, path = encode(format), random.Random(0), tmp_path / "a"
    messages = []
    for _ in range(100):
        damaged = bytearray(whole[: chance.choice([len(whole), chance.randrange(1, len(whole))])])
        for _ in range(chance.choice([1, 4, 16])):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        for read in (images.header_size, images.load):
            try:
                read(path)
            except UserError as error:
                messages.append(str(error))
    assert len(messages) > 50 and all(message.startswith(f"{path}: ") for message in messages)


def test_bad_files_are_named(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).save(buffer, "PNG")
    (tmp_path / "half.png").write_bytes(buffer.getvalue()[:20000])
    (tmp_path / "text.png").write_text("not an image")
    gradient("RGB").convert("CMYK").save(tmp_path / "cmyk.tiff")
    for name, message in [("half", "truncated"), ("text", "not a readable"), ("absent", "no such file")]:
        with pytest.raises(UserError, match=rf"{name}\.png: .*{message}"):
            images.load(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"cmyk\.tiff: colour mode CMYK"):
        images.load(tmp_path / "cmyk.tiff")


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_a_cmyk_jpeg_is_read_as_torchvision_does(tmp_path):
    path = tmp_path / "cmyk.jpg"
    Image.fromarray(data.astronaut()).convert("CMYK").save(path)
    theirs = decode_image(str(path), ImageReadMode.RGB)
    assert (images.to_uint8(images.load(path)).int() - theirs.int()).abs().max() <= 1


def test_a_picture_that_no_memory_holds_is_refused_by_its_header(tmp_path):
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    png += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "huge.png").write_bytes(png)
    with pytest.raises(UserError, match=r"huge\.png: has more than 179 million pixels; cut it into parts"):
        images.header_size(tmp_path / "huge.png")
