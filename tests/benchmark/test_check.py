"""The check of published test sets: scikit-image's photographs in place of theirs, scored by other code."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr3eval import matlab
from sr3eval.benchmark import check as module
from sr3eval.benchmark.check import SETS, TestSet, check
from sr3eval.errors import UserError

PHOTOS = {
    "astronaut": data.astronaut()[:97, 150:251],
    "coffee": data.coffee()[100:189, 200:303],
    "camera": data.camera()[100:190, 200:299],  # grey
}


def lines_resized(image: np.ndarray, scale: float) -> np.ndarray:
    """imresize of the first dimension: pixel by pixel, of the image and its mirror images."""
    length, shrink = len(image), min(scale, 1.0)
    wide = np.concatenate([image[::-1], image, image[::-1]])
    out = []
    for k in range(int(np.ceil(scale * length))):
        x = np.abs((np.arange(-length, 2 * length) - ((k + 0.5) / scale - 0.5)) * shrink)
        weights = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2) * (x < 2)
        out.append(np.tensordot(weights / weights.sum(), wide, 1))
    return np.array(out)


def resized(image: np.ndarray, scale: float) -> np.ndarray:
    return lines_resized(lines_resized(image.astype(float), scale).swapaxes(0, 1), scale).swapaxes(0, 1)


def rounded(levels: np.ndarray) -> np.ndarray:
    return np.floor(levels.clip(0, 255) + 0.5)


def luma(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else image @ [65.481, 128.553, 24.966] / 255 + 16


def compared(sr: np.ndarray, hr: np.ndarray, border: int) -> tuple[float, float]:
    """PSNR and Wang's SSIM, over the area where its window fits, of levels of 255 with the border cut."""
    inner = (slice(border, sr.shape[0] - border), slice(border, sr.shape[1] - border))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True, "data_range": 255}
    _, full = structural_similarity(hr[inner], sr[inner], channel_axis=2 if sr.ndim == 3 else None, **options)
    return peak_signal_noise_ratio(hr[inner], sr[inner], data_range=255), full[5:-5, 5:-5].mean()


def papers(image: np.ndarray, scale: int) -> tuple[float, float]:
    """The literature's protocol."""
    y = rounded(luma(image[: len(image) // scale * scale, : image.shape[1] // scale * scale]))
    return compared(rounded(resized(resized(y, 1 / scale), scale)), y, scale)


def of_files(image: np.ndarray, scale: int, border: int, colour: bool) -> tuple[float, float]:
    """LR and SR rounded to 8 bit, after each pass; RGB, or Y in floats."""
    rgb = np.broadcast_to(image[..., None], (*image.shape, 3)) if image.ndim == 2 else image
    hr = rgb[: len(rgb) // scale * scale, : rgb.shape[1] // scale * scale].astype(float)
    sr = hr
    for factor in (1 / scale, scale):
        sr = rounded(lines_resized(sr, factor)).swapaxes(0, 1)
        sr = rounded(lines_resized(sr, factor)).swapaxes(0, 1)
    return compared(sr, hr, border) if colour else compared(luma(sr), luma(hr), border)


def printed(score) -> dict[int, module.Score]:
    """A table of "papers' values": means over the photographs, by scale."""
    return {s: module.Score(*np.mean([score(image, s) for image in PHOTOS.values()], axis=0)) for s in (2, 3, 4)}


@pytest.fixture(scope="module")
def papers_print():
    return printed(papers)


@pytest.fixture
def photos(papers_print, monkeypatch):
    """The photographs as a published set, to be met to the last digit."""
    monkeypatch.setitem(SETS, "photos", TestSet("Photos", 3, papers_print, grey=1))
    monkeypatch.setattr(module, "PSNR_TOLERANCE", 1e-6)
    monkeypatch.setattr(module, "SSIM_TOLERANCE", 1e-7)


@pytest.fixture
def folder(tmp_path):
    for name, image in PHOTOS.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    return tmp_path


def refused(*arguments) -> list[str]:
    with pytest.raises(UserError) as error:
        check(*arguments)
    return str(error.value).splitlines()


def test_bicubic_scores_as_other_code_does(photos, folder, papers_print, monkeypatch):
    title, *lines = check("photos", folder)
    assert title == f"{folder}: 3 images, bicubic scores as on Photos"
    monkeypatch.setattr(module, "recognised", lambda paths: "Photos" if set(paths) == set(PHOTOS) else None)
    assert check("photos", folder)[0] == f"{title}, its card's to the last level (Photos)"
    texts = [f"{papers_print[s].psnr:.2f} dB / {papers_print[s].ssim:.4f}" for s in (2, 3, 4)]
    assert lines == [f"Photos x{s}: {t}, papers print {t}" for s, t in zip((2, 3, 4), texts, strict=True)]


@pytest.mark.parametrize(
    ("convention", "line"),
    [
        (lambda image, s: of_files(image, s, s, False), "- LR and SR of 8 bit, Y: "),
        (lambda image, s: of_files(image, s, 0, False), "- the same with no border cut: "),
        (lambda image, s: of_files(image, s, s, True), "- the same in RGB: "),
    ],
)
def test_it_says_which_convention_gives_what_is_printed(photos, folder, monkeypatch, convention, line):
    monkeypatch.setitem(SETS, "photos", TestSet("Photos", 3, printed(convention), grey=1))
    title, *lines = refused("photos", folder)
    assert title == f"{folder}: not Photos as papers score it"
    matched = [text for text in lines if "as printed" in text]
    assert len(matched) == 1 and matched[0].startswith(line) and matched[0].count("as printed") == 3


def test_it_says_what_is_wrong_with_the_files(photos, folder):
    (folder / "camera.png").unlink()
    Image.fromarray(PHOTOS["coffee"][:84, :96]).save(folder / "coffee.png")
    Image.fromarray(PHOTOS["astronaut"][:96, :96]).save(folder / "astronaut.jpg", quality=95)
    (folder / "astronaut.png").unlink()
    reasons = [line for line in refused("photos", folder) if line.startswith("-")]
    assert reasons[:4] == [
        "- it holds 2 images, and Photos has 3, of HR alone",
        "- 1 of 2 files are JPEG, whose losses the papers' files do not have",
        "- 0 of the files are grey, and 1 of Photos: RGB copies score 1.32 dB more",
        "- every side is a multiple of 12: the images have been cut before; take the originals",
    ]


def test_a_grey_file_scores_1_32_db_more_as_rgb(photos, folder):
    """Y spans 219 levels then, and 20 log10(255 / 219) = 1.32."""
    Image.fromarray(PHOTOS["camera"]).convert("RGB").save(folder / "camera.png")
    line = refused("photos", folder)[1]
    found = float(line.split()[2]) - float(line.split("print ")[1].split()[0])
    assert found == pytest.approx(1.32 / 3, abs=0.03)


def as_tensor(image: np.ndarray) -> torch.Tensor:
    rgb = np.array(Image.fromarray(image).convert("RGB"))
    return torch.from_numpy(rgb[: len(rgb) // 2 * 2, : rgb.shape[1] // 2 * 2]).permute(2, 0, 1)


def unfiltered(image: torch.Tensor) -> torch.Tensor:
    return F.interpolate(image[None].float(), scale_factor=0.5, mode="bicubic")[0].round().clamp(0, 255).byte()


def pillow(image: torch.Tensor) -> torch.Tensor:
    size = image.shape[2] // 2, image.shape[1] // 2
    half = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(half)).permute(2, 0, 1)


def saved(folder, shrink, name="{}x2.png"):
    lr = folder.parent / f"{folder.name}_lr"
    lr.mkdir(exist_ok=True)
    for stem, image in PHOTOS.items():
        Image.fromarray(shrink(as_tensor(image)).permute(1, 2, 0).numpy()).save(lr / name.format(stem))
    return lr


@pytest.mark.parametrize(
    ("shrink", "kernel"),
    [
        (pillow, "Pillow's bicubic"),
        (unfiltered, "OpenCV's bicubic, torch's without antialiasing"),
        (lambda image: F.avg_pool2d(image.float(), 2).add(0.5).byte(), "OpenCV's area averaging"),
        (lambda image: image[:, ::2, ::2], "every n-th pixel"),
    ],
)
def test_it_names_the_kernel_of_lr_images(photos, folder, shrink, kernel):
    lines = refused("photos", folder, saved(folder, shrink))
    found = [line for line in lines if "LR images" in line]
    how = "3 of 3 to the last level, mean difference 0.00 levels"
    assert found == [f"- the LR images are made by {kernel}, or nearest to it ({how}), not by MATLAB's imresize"]


@pytest.mark.parametrize("name", ["{}x2.png", "{}_LR.png", "{}_SRF_2_LR.png", "{}.png"])
def test_given_lr_images_are_enlarged(photos, folder, monkeypatch, name):
    scores = printed(lambda image, s: of_files(image, s, s, False))
    monkeypatch.setitem(SETS, "photos", TestSet("Photos", 3, scores, grey=1))
    lines = check("photos", folder, saved(folder, lambda image: matlab.imresize(image, 0.5), name))
    assert len(lines) == 2 and lines[1].startswith("Photos x2: ")


def test_lr_images_must_fit(photos, folder):
    lr = saved(folder, lambda image: image)
    assert refused("photos", folder, lr) == ["LR images: x1 smaller; give x2, x3 or x4"]
    (lr / "camerax2.png").unlink()
    assert refused("photos", folder, lr) == [f"{lr}: no LR image of camera"]


def test_the_sets_have_names(folder):
    assert refused("set4", folder)[0].startswith('unknown test set "set4": did you mean "set')
    assert refused("BSD100", folder)[0] == f"{folder}: not B100 as papers score it"
    assert {name: (s.images, sorted(s.scores)) for name, s in SETS.items()} == {
        "set5": (5, [2, 3, 4]),
        "set14": (14, [2, 3, 4]),
        "b100": (100, [2, 3, 4]),
        "urban100": (100, [2, 3, 4]),
        "manga109": (109, [2, 3, 4]),
    }


def test_the_number_of_images_counts_even_where_their_mean_is_right(photos, folder):
    for name in PHOTOS:
        (folder / f"{name} again.png").write_bytes((folder / f"{name}.png").read_bytes())
    assert refused("photos", folder)[4] == "- it holds 6 images, and Photos has 3, of HR alone"
