"""From pack to pictures: the same pixels, nothing else; and packs that are not right."""

import hashlib
import io
import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from sr3eval.errors import UserError
from study_app import pack as packs
from study_app.pack import Pack
from tests.study_app.small_study import SIZE, everything, make_app, open_study, photograph, small_spec


def chunks(png: bytes) -> list[bytes]:
    names, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        names.append(png[at + 4 : at + 8])
        at += 12 + length
    return names


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("task", [1, 2])
def test_pairs_hold_the_packs_pixels_and_no_sign_of_where_they_are_from(pack, task):
    source = Pack(pack)
    models = source.slugs()
    pairs = list(source.pairs(small_spec(task=task), models))
    assert len(pairs) == (2 + 8) * 2 + 2
    for pair in pairs:
        files = [pair.real, pair.other] + ([pair.middle] if task == 1 else [])
        assert len({len(png) for png in files}) == 1
        assert len(pair.real) % packs.PAD_TO == 0
        # One sequence of chunks for all: which picture was padded is not to be seen.
        assert {tuple(dict.fromkeys(chunks(png))) for png in files} == {(b"IHDR", b"IDAT", b"paDd", b"IEND")}
        assert np.array_equal(pixels(pair.real), np.asarray(photograph(pair.image_id)))
        if pair.model:
            path = pack / models[pair.model] / f"{pair.image_id}.png"
            assert np.array_equal(pixels(pair.other), pixels(path.read_bytes()))
        if task == 1:
            lr = pixels((pack / "lr" / f"{pair.image_id}.png").read_bytes())
            assert np.array_equal(pixels(pair.middle), lr.repeat(4, axis=0).repeat(4, axis=1))


def test_catch_trials_owe_nothing_to_the_models(pack):
    photographs = {f"catch_place/{i:03}": np.asarray(photograph(f"catch_place/{i:03}")) for i in range(4)}
    for task in (1, 2):
        spec = small_spec(task=task, catch=4)
        catches = [pair for pair in Pack(pack).pairs(spec, Pack(pack).slugs(["sr3"])) if pair.kind == "catch"]
        others = [pixels(pair.other) for pair in catches]
        assert [pair.model for pair in catches] == [""] * 4
        if task == 1:  # parts of another catch image, upside down, each of another one
            sources = packs._most_different([Image.fromarray(photograph) for photograph in photographs.values()])
            assert len({source.tobytes() for source in sources}) == 4
            for source, other in zip(sources, others, strict=True):
                turned = source.transpose(Image.Transpose.ROTATE_180)
                fits = [
                    np.abs(np.asarray(turned.resize((SIZE, SIZE), 3, (x, y, x + 24, y + 24)), int) - other).max()
                    for x in range(9)
                    for y in range(9)
                ]
                assert fits.count(0) == 1
        else:  # blocks of one colour each
            side = SIZE // packs.MOSAIC
            assert all(np.array_equal(o, o[::side, ::side].repeat(side, 0).repeat(side, 1)) for o in others)


def test_a_blur_for_questions_that_blocks_might_win(pack):
    for task in (1, 2):
        pairs = Pack(pack).pairs(small_spec(task=task, catch_picture="blur"), Pack(pack).slugs(["sr3"]))
        for pair in (pair for pair in pairs if pair.kind == "catch"):
            real, other = (pixels(png).astype(float) for png in (pair.real, pair.other))
            assert np.abs(np.diff(other, axis=0)).mean() < np.abs(np.diff(real, axis=0)).mean() / 4
            assert np.abs(other.mean((0, 1)) - real.mean((0, 1))).max() < 2
    flat = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))
    with pytest.raises(UserError, match="place/1: looks the same when blurred"):
        packs._blurred(packs.Item("place/1", "catch", {}), flat)


def test_a_flat_picture_is_still_told_from_its_catch():
    flat = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))
    assert np.asarray(packs._mosaic(flat, 0)).std() > 20


def test_metadata_goes_and_colour_profiles_are_applied(tmp_path):
    image = photograph("a")
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "esrgan")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "a.png", pnginfo=text, icc_profile=profile, dpi=(72, 72))
    encoded = packs.encode(packs.decode((tmp_path / "a.png").read_bytes(), tmp_path))
    assert chunks(encoded) == [b"IHDR", b"IDAT", b"IEND"]
    assert np.abs(pixels(encoded).astype(int) - np.asarray(image)).max() <= 1


def drop(folder):
    (folder / "sr3/test_place/003.png").unlink()


def change(folder):
    photograph("other").save(folder / "hr/test_place/003.png")


def rewrite(path, content):
    """Put a file into the pack, with its sha256 in the manifest."""

    def damage(folder):
        (folder / path).write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_text())
        slug, image_id = path.split("/", 1)
        for item in manifest["items"]:
            if item["image_id"] == image_id.removesuffix(".png"):
                item["sha256"][slug] = hashlib.sha256(content).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def edit(change):
    def damage(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, "sr3/test_place/003.png: No such file"),
        (change, "hr/test_place/003.png: not the file that the manifest names"),
        (rewrite("sr3/test_place/003.png", png(photograph("x", 16))), "is 16x16, the image's other pictures are 32x32"),
        (
            rewrite("hr/test_place/003.png", png(photograph("x", 64))),
            "is 32x32, the image's other pictures are 64x64",
        ),
        (rewrite("lr/test_place/003.png", png(photograph("x").resize((8, 4)))), r"\(8x4\) does not scale to 32x32"),
        (rewrite("sr3/test_place/003.png", b"no picture"), "not a readable picture"),
        (rewrite("sr3/test_place/003.png", png(photograph("x"))[:900]), "not a readable picture"),
        (rewrite("sr3/test_place/003.png", png(Image.new("RGBA", (SIZE, SIZE)))), "8-bit opaque pictures"),
        (rewrite("sr3/test_place/003.png", png(Image.new("I;16", (SIZE, SIZE)))), "8-bit opaque pictures"),
        (edit(lambda m: m["items"].pop(3)), "needs 8 test images, the pack has 7"),
        (edit(lambda m: m["items"][3]["sha256"].pop("hr")), "has no real pictures"),
        (edit(lambda m: m["items"][3]["sha256"].pop("sr3")), "not the file that the manifest names"),
        (edit(lambda m: m["items"][3].update(image_id="../../etc")), "is not inside the pack"),
        (edit(lambda m: m["items"][3].update(image_id=m["items"][4]["image_id"])), "an image is listed twice"),
        (edit(lambda m: m.update(format=3)), "not a manifest of format 1 to 2"),
        (edit(lambda m: m.pop("methods")), 'missing key "methods"'),
        (lambda folder: (folder / "manifest.json").write_text("["), "not a readable manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), "make a pack with"),
    ],
)
def test_a_bad_pack_is_one_line_and_nothing_is_written(pack, tmp_path, clock, damage, message):
    url = f"sqlite:///{tmp_path / 'study.sqlite'}"
    app = make_app(url, clock)
    open_study(app, pack, small_spec(), "other")
    before = everything(url)
    folder = Path(shutil.copytree(pack, tmp_path / "pack"))
    damage(folder)
    line = ["study", "create", str(folder), "--study", "demo_task1", "--set", "images=8", "--set", "per_subject=4"]
    line += ["--set", "target=6", "--set", "practice=2", "--set", "catch=2", "--set", "catch_pass=2"]
    result = app.test_cli_runner().invoke(args=line)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ") and result.output.count("\n") == 1
    assert re.search(message, result.output)
    assert everything(url) == before


def test_models_are_chosen_by_name_or_folder(pack):
    source = Pack(pack)
    assert source.slugs() == {"sr3": "sr3", "esrgan (x4)": "esrgan_x4"}
    assert source.slugs(["esrgan_x4"]) == source.slugs(["esrgan (x4)"]) == {"esrgan (x4)": "esrgan_x4"}
    with pytest.raises(UserError, match='no model "sr4": did you mean "sr3"'):
        source.slugs(["sr4"])


def test_an_empty_list_of_models_is_not_all_of_them(pack, tmp_path, clock):
    app = make_app(f"sqlite:///{tmp_path / 'study.sqlite'}", clock)
    line = ["study", "create", str(pack), "--study", "demo_task1", "--models", ""]
    result = app.test_cli_runner().invoke(args=line)
    assert result.exit_code == 1 and result.output.startswith('Error: the pack has no model ""')
