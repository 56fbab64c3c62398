"""Set cards: made of folders, and every way in which another folder differs is named."""

import hashlib
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from skimage import data

from benchmark import main
from sr3eval.benchmark import RunConfig
from sr3eval.benchmark.kernels import KERNELS
from sr3eval.benchmark.plan import plan
from sr3eval.benchmark.set_cards import card as cards
from sr3eval.benchmark.set_cards.check import recognised
from sr3eval.benchmark.set_cards.prints import pixels_of
from sr3eval.config import resolve_path
from sr3eval.doctor import of_config
from sr3eval.folders import find_images

PHOTOS = {
    "astronaut": data.astronaut()[:97, 150:251],
    "cat": data.chelsea()[100:190, 120:222],
    "coffee": data.coffee()[100:189, 200:303],
    "grey": data.camera()[100:190, 200:299],
}


def said(*words) -> list[str]:
    """The lines of a command that succeeds."""
    done = CliRunner().invoke(main, ["card", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def refused(*words) -> list[str]:
    """The lines of one that does not, below the first."""
    done = CliRunner().invoke(main, ["card", *map(str, words)])
    assert done.exit_code == 1 and not done.stdout, done.output
    title, *lines = done.stderr.splitlines()
    assert title.startswith("Error: ") and "not photos as its card has it" in title
    return lines


def shrunk(hr, lr, kernel="MATLAB's imresize"):
    """LR images x2 of a folder, named as SwinIR's."""
    lr.mkdir(exist_ok=True)
    for path in hr.iterdir():
        image = pixels_of(path)
        image = image[:, : image.shape[1] // 2 * 2, : image.shape[2] // 2 * 2]
        made = KERNELS[kernel](image, (image.shape[1] // 2, image.shape[2] // 2))
        Image.fromarray(made.permute(1, 2, 0).numpy()).save(lr / f"{path.stem}x2.png")
    return lr


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The folder of a set, with LR images and a card beside it."""
    folder = tmp_path_factory.mktemp("sets") / "photos"
    folder.mkdir()
    for name, image in PHOTOS.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    lr = shrunk(folder, folder.with_name("lr"))
    assert said("make", folder, "--lr", lr, "--licence", "CC0") == [str(folder.with_suffix(".toml"))]
    return folder


@pytest.fixture
def copy(photos, tmp_path):
    """The same set, to be changed."""
    for name in ("photos", "lr"):
        shutil.copytree(photos.with_name(name), tmp_path / name)
    shutil.copy(photos.with_suffix(".toml"), tmp_path / "photos.toml")
    return tmp_path / "photos"


def edit(path, change):
    Image.fromarray(change(np.array(Image.open(path)))).save(path)


def test_a_card_says_what_a_set_is(photos):
    card = cards.read(photos.with_suffix(".toml"))
    assert (card.name, card.images, card.licence, card.source) == ("photos", 4, "CC0", "unknown")
    size, file, pixels, inner, grid = card.hr[0].images["coffee"].split()
    image = PHOTOS["coffee"]
    assert size == "103x89x3" and card.hr[0].images["grey"].startswith("99x90x1 ")
    assert file == hashlib.sha256((photos / "coffee.png").read_bytes()).hexdigest()
    assert pixels == hashlib.sha256(image.tobytes()).hexdigest()
    assert inner == hashlib.sha256(image[1:-1, 1:-1].tobytes()).hexdigest()[:16]
    flat = np.repeat(np.repeat(image.mean(axis=2), 4, 0), 4, 1)  # of which each of 4 x 4 parts has whole pixels
    means = flat.reshape(4, image.shape[0], 4, image.shape[1]).mean(axis=(1, 3))
    np.testing.assert_allclose(list(bytes.fromhex(grid)), means.ravel(), atol=0.51)
    (lr,) = card.lr
    assert (lr.scale, lr.made, lr.exact, lr.images["coffee"].split()[0]) == (2, "MATLAB's imresize", 4, "51x44x3")
    assert [score.scale for score in card.bicubic] == [2] and 25 < card.bicubic[0].psnr < 40


def test_the_same_images_are_the_set_whatever_their_files(copy):
    lr = copy.with_name("lr")
    title, *lines = said("check", copy, "--lr", lr)
    assert title.startswith(f"{copy}: photos (") and lines == [
        "HR: 4 images (4 files to the byte)",
        "LR x2: 4 images (made by MATLAB's imresize, 4 files to the byte)",
    ]
    for index, path in enumerate(sorted(copy.iterdir())):  # named and compressed otherwise
        Image.open(path).save(copy / f"img_{index}_HR.png", compress_level=1)
        path.unlink()
    assert said("check", copy)[1:] == ["HR: 4 images (4 under other names)"]


CHANGES = {
    "altered": lambda image: image ^ (np.indices(image.shape).sum(0) == 90).astype(np.uint8),
    "altered at its outermost pixels": lambda image: np.pad(image[1:-1, 1:-1], [(1, 1), (1, 1), (0, 0)]),
    "shifted by 1 px down": lambda image: np.roll(image, 1, axis=0),
    "shifted by 1 px up and 1 px to the left": lambda image: np.roll(image, (-1, -1), axis=(0, 1)),
    "1 px less at the left": lambda image: image[:, 1:],
    "1 px less at the bottom": lambda image: image[:-1],
    "1 px less at the top, 1 px less at the right": lambda image: image[1:, :-1],
    "1 px more at the right": lambda image: np.pad(image, [(0, 0), (0, 1), (0, 0)]),
    "51x44 pixels, and 103x89 in the set": lambda image: image[:88:2, :102:2],
    "another picture": lambda image: image[::-1],
}


@pytest.mark.parametrize("text", CHANGES)
def test_a_changed_image_is_named_with_its_change(copy, text):
    edit(copy / "coffee.png", CHANGES[text])
    assert refused("check", copy) == [f"- HR: {text}: coffee"]


def test_one_level_of_one_pixel_is_found(copy):
    def change(image):
        image[40, 50, 1] ^= 1
        return image

    edit(copy / "cat.png", change)
    assert refused("check", copy) == ["- HR: altered: cat"]


def test_missing_additional_and_swapped_images_are_named(copy):
    (copy / "astronaut.png").unlink()
    Image.fromarray(data.rocket()[:90, :90]).save(copy / "rocket.png")
    shutil.copy(copy / "cat.png", copy / "cat2.png")
    (copy / "cat.png").rename(copy / "x.png")
    (copy / "coffee.png").rename(copy / "cat.png")
    edit(copy / "grey.png", lambda image: np.stack([image] * 3, -1))
    assert refused("check", copy) == [
        "- HR: missing: astronaut",
        "- HR: additional: rocket",
        "- HR: additional, a copy of cat: x",
        "- HR: the picture of coffee: cat",
        "- HR: RGB, and grey in the set: grey",
    ]


def test_lr_images_of_another_kernel_are_named(copy):
    lr = copy.with_name("lr")
    others = shrunk(copy, copy.with_name("others"), "Pillow's bicubic")
    shutil.copy(others / "coffeex2.png", lr)
    shutil.copy(others / "greyx2.png", lr)
    edit(lr / "catx2.png", lambda image: image ^ (np.indices(image.shape).sum(0) == 60).astype(np.uint8))
    (lr / "astronautx2.png").unlink()
    assert refused("check", copy, "--lr", lr) == [
        "- LR x2: altered: cat",
        "- LR x2: made by Pillow's bicubic, not MATLAB's imresize: coffee, grey",
        "- LR x2: missing: astronaut",
    ]
    assert refused("check", copy, "--lr", others) == [
        "- LR x2: made by Pillow's bicubic, not MATLAB's imresize: astronaut, cat, coffee, grey"
    ]


def test_lr_images_of_altered_hr_are_not_the_sets(copy):
    edit(copy / "cat.png", lambda image: 255 - image // 2 * 2)
    shrunk(copy, copy.with_name("lr"))
    assert refused("check", copy, "--lr", copy.with_name("lr")) == [
        "- HR: another picture: cat",
        "- LR x2: another picture: cat",
    ]
    edit(copy / "cat.png", lambda image: 255 - image + (image < 255))
    shrunk(copy, copy.with_name("lr"))
    assert refused("check", copy, "--lr", copy.with_name("lr")) == [
        "- HR: altered: cat",
        "- LR x2: made of another HR image than the set's: cat",
    ]


def test_whole_images_are_those_of_a_card_of_cut_ones(copy, tmp_path):
    made = tmp_path / "cut.toml"
    said("make", copy, "--cut", 4, "--name", "photos", "--out", made)
    assert cards.read(made).hr[0].images["coffee"].startswith("100x88x3")
    assert said("check", copy, "--card", made)[1:] == ["HR: 4 images (4 files to the byte)"]
    edit(copy / "coffee.png", lambda image: image[:88, 1:101])
    assert refused("check", copy, "--card", made) == ["- HR: shifted by 1 px to the left: coffee"]


def test_without_hashes_numbers_and_kernels_are_checked(copy, tmp_path):
    card = cards.Card("photos", 4, lr=(cards.LR(2, "MATLAB's imresize"),))
    (tmp_path / "words.toml").write_text(cards.text(card))
    options = ("check", copy, "--lr", copy.with_name("lr"), "--card", tmp_path / "words.toml")
    assert said(*options)[1:] == ["HR: 4 images", "LR x2: 4 images (made by MATLAB's imresize)"]
    shrunk(copy, copy.with_name("lr"), "OpenCV's area averaging")
    (copy / "cat.png").unlink()
    assert refused(*options) == [
        "- HR: 3 images, and photos has 4",
        "- LR x2: without HR: cat",
        "- LR x2: made by OpenCV's area averaging, not MATLAB's imresize: astronaut, coffee, grey",
    ]


def test_lr_images_alone_have_a_card(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    said("make", "--lr", tmp_path / "photos")
    assert said("check", "--lr", tmp_path / "photos")[1:] == ["LR: 4 images (4 files to the byte)"]
    edit(tmp_path / "photos" / "cat.png", lambda image: image[:-1])
    assert refused("check", "--lr", tmp_path / "photos") == ["- LR: 1 px less at the bottom: cat"]


def test_the_cards_that_come_along_are_read():
    names = cards.shipped()
    assert len(names) >= 15
    for name, path in names.items():
        card = cards.read(path)
        assert card.licence and card.source and card.use and card.cite, name
        assert all(len(part.images) in (0, card.images) for part in (*card.hr, *card.lr)), name
        assert bool(card.seen) == any(part.images for part in (*card.hr, *card.lr)), name
        assert all(part.made == cards.UNKNOWN or part.made in KERNELS or not part.images for part in card.lr), name


def test_embedded_images_are_recognised():
    files = find_images(resolve_path("sr3eval:assets/photos_16_64"))
    assert recognised(files) == "photos_16_64"
    assert recognised({i: files[i] for i in list(files)[1:]}) is None
    assert recognised(dict.fromkeys(files, files[next(iter(files))])) is None
    assert said("check", resolve_path("sr3eval:assets/photos_16_64"))[1:] == ["HR: 256 images (256 files to the byte)"]


def test_runs_and_doctor_name_the_card(tmp_path):
    data = {"images": "sr3eval:assets/photos_16_64"}
    plain = {"task": "photos_16_64", "metrics": ["psnr"], "data": data, "method": [{"kind": "bicubic"}]}
    remark = "sr3eval:assets/photos_16_64: the HR images are those of the set card photos_16_64"
    assert remark in plan(RunConfig.parse(plain), tmp_path / "run", tmp_path / "cache").remarks
    found = [finding.text for finding in of_config(plain, tmp_path / "run") if finding.topic == "images"]
    assert found == ["sr3eval:assets/photos_16_64: 256 images; the set card photos_16_64's"]
    data["limit"] = 7
    assert remark not in plan(RunConfig.parse(plain), tmp_path / "part", tmp_path / "cache").remarks


def test_wrong_cards_are_told(photos, tmp_path):
    for name, text in {
        "set55": 'unknown card "set55": did you mean "set5"?; or give a .toml file',
        str(tmp_path / "none.toml"): f"{tmp_path / 'none.toml'}: no such file",
    }.items():
        done = CliRunner().invoke(main, ["card", "check", str(photos), "--card", name])
        assert done.exit_code == 1 and done.stderr == f"Error: {text}\n"
    (tmp_path / "other.toml").write_text('name = "x"\nimages = 1\n[[hr]]\nimages = { a = "1x1 b" }\n')
    done = CliRunner().invoke(main, ["card", "check", str(photos), "--card", str(tmp_path / "other.toml")])
    assert done.stderr == f'Error: {tmp_path / "other.toml"}: a: "1x1 b" is not "SIZE FILE PIXELS INNER GRID"\n'
    again = CliRunner().invoke(main, ["card", "make", str(photos)])
    assert again.exit_code == 2 and "already exists; give another --out" in again.stderr
