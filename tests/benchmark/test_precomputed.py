"""Outputs from elsewhere: folders and zip files, naming schemes, hostile packs; what a run records of them."""

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr3eval.benchmark import run as score_run
from sr3eval.benchmark import table
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.scores import read_conventions, read_run
from sr3eval.benchmark.summary import summarise
from sr3eval.errors import UserError
from sr3eval.images import encode_png, load, save, to_uint8
from sr3eval.methods.precomputed import Precomputed

NO_HR = Path()  # outputs are found without it
IDS = ["a/1", "a/2", "b/3"]


def picture(index, side=64):
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(index)).mul(255).round().div(255)


def pack(path, names, compression=zipfile.ZIP_DEFLATED):
    """A zip of pictures: the n-th name holds picture(n)."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for index, name in enumerate(names):
            archive.writestr(name, encode_png(picture(index)))
    return path


def folder(path, names):
    for index, name in enumerate(names):
        save(path / name, picture(index))
    return path


def checked(path, pattern=None, ids=IDS, known=IDS, size=64):
    outputs = Precomputed(path, pattern)
    outputs.check(ids, dict.fromkeys(known, (size, size)))
    return outputs


@pytest.mark.parametrize("make", [pack, folder])
def test_reads_the_pictures_by_their_ids(tmp_path, make):
    outputs = checked(make(tmp_path / "outputs.zip", [f"{i}.png" for i in IDS]))
    for index, image_id in enumerate(IDS):
        assert torch.equal(outputs.lookup(image_id, NO_HR), picture(index))


def test_jpeg_2000_in_a_zip_is_refused_before_anything_is_made(tmp_path):
    Image.new("L", (64, 64)).save(tmp_path / "1.jp2")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.write(tmp_path / "1.jp2", "1.jp2")
    with pytest.raises(UserError, match=r"1\.jp2: JPEG2000 is not supported"):
        checked(tmp_path / "p.zip", ids=["1"], known=["1"])


def test_a_zip_and_the_same_folder_have_one_checksum(tmp_path):
    names = [f"{i}.png" for i in IDS]
    packed = checked(pack(tmp_path / "packed.zip", names, zipfile.ZIP_STORED)).facts.checksums
    assert list(packed.values()) == list(checked(folder(tmp_path / "plain", names)).facts.checksums.values())
    pack(tmp_path / "packed.zip", list(reversed(names)))
    assert checked(tmp_path / "packed.zip").facts.checksums != packed


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("(?P<id>.+)_x4_SR", ["a/1_x4_SR.png", "a/2_x4_SR.png", "b/3_x4_SR.png", "a/1_HR.png", "a/1_HR.bmp"]),
        (r"pack/(?P<id>\d+)_out", ["pack/1_out.png", "pack/2_out.png", "pack/3_out.png", "pack/readme.png"]),
        (r"(.+/)?(?P<id>[^/]+)", ["one/1.png", "one/2.png", "3.png"]),
    ],
)
@pytest.mark.parametrize("make", [pack, folder])
def test_naming_schemes(tmp_path, make, pattern, names):
    outputs = checked(make(tmp_path / "outputs.zip", names), pattern)
    assert list(outputs.paths) == IDS
    assert torch.equal(outputs.lookup("b/3", NO_HR), picture(2))


def test_a_file_name_may_stand_for_one_image_only(tmp_path):
    path = pack(tmp_path / "p.zip", ["1_SR.png", "2_SR.png"])
    with pytest.raises(UserError, match='"1" may be a/1 or b/1; keep folders in the id'):
        checked(path, "(?P<id>.+)_SR", known=["a/1", "b/1", "a/2"])
    both = pack(tmp_path / "both.zip", ["a/1_SR.png", "1_SR.png"])
    with pytest.raises(UserError, match='two images share the id "a/1"'):
        checked(both, "(?P<id>.+)_SR", known=["a/1"])
    with pytest.raises(UserError, match=r"3 missing \(first: a/1\), 2 unknown \(first: 1\)"):
        checked(pack(tmp_path / "plain.zip", ["1.png", "2.png"]))  # without a pattern, ids are whole paths


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?P<id>.+", "not a regular expression"),
        (".+_SR", r"has no group (?P<id>...)"),
        ("(?P<id>.+)_out", r"none of its 2 images matches (?P<id>.+)_out"),
        (r"(?P<id>\d)_.+", 'two images share the id "1" (1_SR.png, 1_HR.png)'),
    ],
)
def test_bad_patterns(tmp_path, pattern, message):
    path = pack(tmp_path / "p.zip", ["1_SR.png", "1_HR.png"])
    with pytest.raises(UserError) as caught:
        Precomputed(path, pattern)
    assert message in str(caught.value)


def test_missing_unknown_and_wrong_sizes_are_counted(tmp_path):
    path = pack(tmp_path / "p.zip", ["a/1_SR.png", "b/4_SR.png"])
    with pytest.raises(
        UserError, match=r"2 missing \(first: a/2\), 1 unknown \(first: b/4\), 1 not 32x32 \(first: a/1"
    ):
        checked(path, "(?P<id>.+)_SR", size=32)
    checked(path, "(?P<id>.+)_SR", ids=["a/1"], known=[*IDS, "b/4"])


def test_what_is_no_picture_of_the_pack_is_passed_over(tmp_path):
    names = ["/a/1.png", "../a/1.png", "__MACOSX/._1.png", ".hidden/1.png", "inner.zip", "notes.txt"]
    path = pack(tmp_path / "p.zip", [*(f"{i}.png" for i in IDS), *names])
    assert list(checked(path).paths) == IDS
    assert list(tmp_path.iterdir()) == [path]  # nothing was unpacked


def edited(path, offset, value):
    """Overwrite a field of the first member, in its local header and in the directory, where it is two bytes later."""
    content = bytearray(path.read_bytes())
    for start, shift in ((content.index(b"PK\3\4"), 0), (content.index(b"PK\1\2"), 2)):
        content[start + offset + shift : start + offset + shift + len(value)] = value
    path.write_bytes(content)


BAD = {
    "encrypted": (6, struct.pack("<H", 1), "a/1.png is encrypted"),
    "bzip2": (8, struct.pack("<H", 12), "compressed in another way than deflate"),
    "bomb": (22, struct.pack("<I", 2**31), "claims to unpack to 2,147,483,648 bytes"),
    "wrong checksum": (14, b"abcd", "Bad CRC-32"),
}


@pytest.mark.parametrize("case", BAD)
def test_hostile_zips(tmp_path, case):
    offset, value, message = BAD[case]
    path = pack(tmp_path / "p.zip", [f"{i}.png" for i in IDS])
    edited(path, offset, value)
    with pytest.raises(UserError, match=message):
        checked(path)


def test_broken_zips(tmp_path):
    path = pack(tmp_path / "p.zip", [f"{i}.png" for i in IDS])
    whole = path.read_bytes()
    for content in (whole[:-30], whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"p.zip: not a zip file, or truncated"):
            Precomputed(path)
    damaged = bytearray(whole)
    damaged[2000:2100] = bytes(100)
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"p.zip"):
        checked(path)
    with pytest.raises(UserError, match=r"none.zip: cannot be read \(No such file"):
        Precomputed(tmp_path / "none.zip")
    with pytest.raises(UserError, match="no images in it"):
        Precomputed(pack(tmp_path / "empty.zip", []))
    with pytest.raises(UserError, match='two images share the id "1"'):
        Precomputed(pack(tmp_path / "twice.zip", ["1.png", "1.bmp"]))


TRAINED = """
from sr3eval.method import Facts, Method, Upscaled
class Trained(Method):
    name, scale, facts = "trained", 4, Facts(architecture="RCAN", lr_kernel="MATLAB bicubic")
    def upscale(self, lr, seeds, progress=None):
        return Upscaled(lr.repeat_interleave(4, -1).repeat_interleave(4, -2))
build = Trained
"""


def run(tmp_path, *method):
    settings = {
        "task": "photos_16_64",
        "metrics": ["psnr"],
        "data": {"images": str(folder(tmp_path / "hr", [f"{i}.png" for i in IDS]))},
        "method": list(method),
    }
    score_run(RunConfig.parse(settings), tmp_path / "run", tmp_path / "cache")
    return json.loads((tmp_path / "run" / "environment.json").read_text())


def test_a_run_notices_that_a_pack_changed(tmp_path):
    names = ["1_out.png", "2_out.png", "3_out.png"]
    path = pack(tmp_path / "pack.zip", names)
    method = {"kind": "precomputed", "name": "theirs", "folder": str(path), "pattern": "(?P<id>.+)_out"}
    first = run(tmp_path, method)["sha256"]["theirs"]
    assert torch.equal(load(tmp_path / "run" / "images" / "theirs" / "b" / "3.png"), picture(2))
    assert run(tmp_path, method)["sha256"]["theirs"] == first
    pack(path, reversed(names))
    assert run(tmp_path, method)["sha256"]["theirs"] != first
    assert torch.equal(load(tmp_path / "run" / "images" / "theirs" / "b" / "3.png"), picture(0))


def test_the_kernel_trained_on_is_recorded_beside_the_one_given(tmp_path):
    path = ["bicubic 8", "method", "bicubic 64"]
    (tmp_path / "trained.py").write_text(TRAINED)
    trained = {"name": "trained", "python": f"{tmp_path / 'trained.py'}:build"}
    said = run(tmp_path, trained, trained | {"name": "through", "path": path}, {"kind": "bicubic"})
    given = "antialiased bicubic, a = -0.5"
    facts = {"architecture": "RCAN", "lr_kernel": "MATLAB bicubic"}
    assert said["methods"] == {
        "trained": facts | {"lr_kernel_given": given},
        "through": facts | {"lr_kernel_given": f"{given}, then bicubic 8"},
    }


@pytest.mark.parametrize("zipped", [False, True])
def test_arrays_are_read_as_pictures_are(tmp_path, zipped):
    levels = [(picture(index) * 255).round().to(torch.uint8) for index in range(4)]
    ids = ["hwc", "chw", "floats", "tensor"]
    np.save(tmp_path / "hwc.npy", levels[0].permute(1, 2, 0).numpy())
    np.save(tmp_path / "chw.npy", levels[1].numpy())
    np.save(tmp_path / "floats.npy", levels[2].numpy() / 255)  # float64
    torch.save(levels[3].permute(1, 2, 0) / 255, tmp_path / "tensor.pt")
    where = tmp_path
    if zipped:
        where = tmp_path / "all.zip"
        with zipfile.ZipFile(where, "w") as archive:
            for path in [*tmp_path.glob("*.npy"), tmp_path / "tensor.pt"]:
                archive.write(path, path.name)
    outputs = checked(where, ids=ids, known=ids)
    for index, image_id in enumerate(ids):
        assert torch.equal(to_uint8(outputs.lookup(image_id, NO_HR)), levels[index])
        assert outputs.lookup(image_id, NO_HR).dtype == torch.float32


def refused(path, array, message):
    if path.suffix == ".npy":
        np.save(path, array, allow_pickle=True)
    else:
        torch.save(array, path)
    with pytest.raises(UserError, match=message):
        checked(path.parent, ids=[path.stem], known=[path.stem])
    path.unlink()


def test_bad_arrays_are_refused(tmp_path):
    refused(tmp_path / "a.npy", np.zeros((64, 64)), r"has the shape \(64, 64\), neither")
    refused(tmp_path / "a.npy", np.zeros((1, 3, 64, 64)), r"has the shape \(1, 3, 64, 64\), neither")
    refused(tmp_path / "a.npy", np.full((64, 64, 3), 255.0), r"floats in \[255, 255\]; they must be in \[0, 1\]")
    refused(tmp_path / "a.npy", np.full((64, 64, 3), np.nan), "they must be in")
    refused(tmp_path / "a.npy", np.zeros((64, 64, 3), np.int64), "holds torch.int64, neither uint8 nor floats")
    refused(tmp_path / "a.npy", np.array([{}], object), "not a readable array")
    refused(tmp_path / "a.pt", {"sr": torch.zeros(3, 64, 64)}, "holds a dict, not a tensor")
    refused(tmp_path / "a.pt", torch.zeros(3, 60, 64), r"1 not 64x64 \(first: a, 64x60\)")
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match="not a readable array"):
        checked(tmp_path, ids=["a"], known=["a"])


@pytest.mark.parametrize(
    ("known", "name"),
    [
        (["baby", "bird"], "{id}/{id}_SwinIR.png"),  # BasicSR: visualization/Set5/baby/baby_SwinIR.png
        (["baby", "bird"], "Set5/{id}/{id}_SwinIR.png"),
        (["Set5/baby", "Set5/bird"], "Set5/{name}/{name}_SwinIR.png"),
    ],
)
def test_folders_of_other_programs(tmp_path, known, name):
    names = [name.format(id=image_id, name=image_id.rsplit("/", 1)[-1]) for image_id in known]
    outputs = checked(folder(tmp_path / "visualization", names), "(?P<id>.+)_SwinIR", known, known)
    assert torch.equal(outputs.lookup(known[1], NO_HR), picture(1))


def test_the_folders_of_outputs_tell_images_of_one_name_apart(tmp_path):
    known = ["Set5/baby", "Set14/baby"]
    path = folder(tmp_path / "vis", ["Set5/baby/baby_x.png", "Set14/baby/baby_x.png"])
    outputs = checked(path, "(?P<id>.+)_x", known, known)
    assert torch.equal(outputs.lookup("Set5/baby", NO_HR), picture(0)) and torch.equal(
        outputs.lookup("Set14/baby", NO_HR), picture(1)
    )


def test_a_pattern_without_folders_finds_files_in_them(tmp_path):
    path = folder(tmp_path / "vis", ["0801/0801_out.png", "deep/er/0802_out.png"])
    assert list(checked(path, r"(?P<id>\d+)_out", ["0801", "0802"], ["0801", "0802"]).paths) == ["0801", "0802"]
    folder(path, ["0801_out.png"])  # then those of the folder itself are meant
    assert list(checked(path, r"(?P<id>\d+)_out", ["0801"], ["0801", "0802"]).paths) == ["0801"]


def test_jpegs_are_remarked_upon(tmp_path):
    outputs = folder(tmp_path / "outputs", [f"{i}.png" for i in IDS])
    for name in ("a/1.jpg", "a/2.png"):  # one by its name, one by its content alone
        (outputs / name).with_suffix(".png").unlink()
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(outputs / name, "JPEG")
    said = run(tmp_path, {"kind": "precomputed", "name": "theirs", "folder": str(outputs)}, {"kind": "bicubic"})
    warning = "2 of its 3 outputs saved as JPEG, whose losses are scored with it"
    assert said["warnings"] == {"theirs": warning}
    results = summarise(read_run(tmp_path / "run"), read_conventions(tmp_path / "run"))
    assert f"; {warning}.\n" in table.markdown(results)
    assert "JPEG" not in table.markdown(results[results["method"] == "bicubic"])
