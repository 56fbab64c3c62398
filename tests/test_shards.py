"""Tar shards: members read at random, tar files of others, and shards that are damaged."""

import hashlib
import io
import json
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from sr3eval import folders, shards
from sr3eval.errors import UserError
from sr3eval.files import digest_of, listing_digest
from sr3eval.folders import SUFFIXES
from sr3eval.images import header_size, load


def picture(seed: int, size: int = 8, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = torch.randint(256, (size, size, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path, files, format=tarfile.GNU_FORMAT):
    """A tar file as any program writes it: not through our writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


SAMPLES = {"a/0.png": picture(0), "a/0.cls": b"7\n", "b/1.JPG": picture(1, kind="JPEG"), "b/1.cls": b"12", "c.png": b""}
SAMPLES["c.png"] = picture(2, size=100)


@pytest.fixture(params=[tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def folder(request, tmp_path):
    write_tar(tmp_path / "s" / "x-0.tar", SAMPLES | {"a/.hidden.png": b"x", "notes.txt": b"x"}, request.param)
    write_tar(
        tmp_path / "s" / "x-1.tar", {"d.png": picture(3), "d.json": b"{}", "d.seg.png": picture(4)}, request.param
    )
    return tmp_path / "s"


def test_any_webdataset_tar_is_a_folder_of_images(folder):
    found = folders.find_images(folder)
    assert list(found) == ["a/0", "b/1", "c", "d"]
    for image_id, name in (("a/0", "a/0.png"), ("b/1", "b/1.JPG"), ("c", "c.png")):
        with found[image_id].open("rb") as file:
            assert file.read() == SAMPLES[name]
        assert (found[image_id].name, found[image_id].suffix) == (name.split("/")[-1], "." + name.split(".")[1])
    assert [found[i].label for i in found] == ["7", "12", None, None]
    assert header_size(found["c"]) == (100, 100)


def test_a_member_is_read_as_the_file_would_be(folder, tmp_path):
    (tmp_path / "f" / "a").mkdir(parents=True)
    (tmp_path / "f" / "b").mkdir()
    for name, content in SAMPLES.items():
        (tmp_path / "f" / name).write_bytes(content)
    files = folders.find_images(tmp_path / "f")
    found = {image_id: folders.find_images(folder)[image_id] for image_id in files}
    assert all(torch.equal(load(files[image_id]), load(found[image_id])) for image_id in files)
    assert digest_of(files) == digest_of(found)
    assert listing_digest(files.items()) == listing_digest(found.items())


def test_a_member_is_seekable_and_ends_where_it_ends(folder):
    content = SAMPLES["a/0.png"]
    with folders.find_images(folder)["a/0"].open("rb") as file:
        assert file.seek(-4, os.SEEK_END) == len(content) - 4
        assert file.read(100) == content[-4:] and file.read(1) == b""
        file.seek(3)
        file.seek(2, os.SEEK_CUR)
        assert file.read(3) == content[5:8]


def test_one_tar_file_may_be_named(folder):
    assert list(folders.find_images(folder / "x-1.tar")) == ["d"]


def test_pictures_beside_a_tar_file_are_what_is_meant(folder):
    (folder / "HR").mkdir()
    (folder / "HR" / "z.png").write_bytes(picture(9))
    assert list(folders.find_images(folder)) == ["HR/z"]


def test_two_images_of_one_key_are_refused(tmp_path):
    write_tar(tmp_path / "0.tar", {"k.png": picture(0), "k.jpg": picture(1, kind="JPEG")})
    with pytest.raises(UserError, match=r'0.tar: two images share the key "k" \(k.png, k.jpg\)'):
        folders.find_images(tmp_path)
    write_tar(tmp_path / "0.tar", {"k.png": picture(0)})
    write_tar(tmp_path / "1.tar", {"k.png": picture(0)})
    with pytest.raises(UserError, match='two images share the id "k"'):
        folders.find_images(tmp_path)


@pytest.mark.parametrize("size", [100, 512, 700, 1024])
def test_a_truncated_tar_file_is_named(tmp_path, size):
    """Within a header, at the border of a member, within a member; without its end."""
    path = write_tar(tmp_path / "0.tar", {"a.png": picture(0), "b.png": picture(1)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"0\.tar: .*truncated"):
        folders.find_images(tmp_path)


def test_a_shard_that_shrinks_while_it_is_read_is_named(folder):
    found = folders.find_images(folder)["c"]
    os.truncate(folder / "x-0.tar", found.offset + 50)
    with pytest.raises(UserError, match=r"x-0\.tar: c\.png: .*the shard is truncated"):
        load(found)


def test_a_compressed_tar_file_is_refused(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w:gz") as archive:
        archive.add(__file__, "a.png")
    with pytest.raises(UserError, match=r"0\.tar: a compressed tar file cannot be read at random; unpack it"):
        folders.find_images(tmp_path)
    (tmp_path / "0.tar").write_bytes(b"x" * 2000)
    with pytest.raises(UserError, match=r"0\.tar: not a tar file"):
        folders.find_images(tmp_path)


@pytest.fixture
def indexed(tmp_path):
    """Two shards with an index, written by hand."""
    entries = []
    for number, names in enumerate((["p/0", "p/1"], ["q.x/2"])):
        files = {f"{i}.png": picture(number) for i in names} | {f"{i}.cls": str(number).encode() for i in names}
        path = write_tar(tmp_path / f"{number:06}.tar", files)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        by_id = dict(shards.scanned(path, SUFFIXES))
        rows = [[i, m.path, m.offset, m.length, number, 8, 8] for i, m in by_id.items()]
        path.with_suffix(".json").write_text(json.dumps({"sha256": sha256, "members": rows}))
        size = path.stat().st_size
        entries.append({"url": path.name, "nsamples": len(names), "filesize": size, "sha256": sha256})
    index = {"format": shards.FORMAT, "wids_version": 1, "classes": ["cat", "dog"], "shardlist": entries}
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def test_with_an_index_nothing_is_scanned(indexed, monkeypatch):
    monkeypatch.setattr(shards, "tar_members", None)
    found = folders.find_images(indexed)
    assert list(found) == ["p/0", "p/1", "q.x/2"]
    assert shards.labels_of(found) == {"p/0": "cat", "p/1": "cat", "q.x/2": "dog"}
    expected = torch.from_numpy(np.array(Image.open(io.BytesIO(picture(1))))).permute(2, 0, 1) / 255
    assert torch.equal(load(found["q.x/2"]), expected)
    monkeypatch.setattr(shards.Member, "open", None)
    assert header_size(found["p/0"]) == (8, 8) and listing_digest(found.items())


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: os.truncate(f / "000001.tar", 1024), r"000001\.tar: truncated \(1,024 of 10,240 bytes\)"),
        (lambda f: os.truncate(f / "000001.tar", 20480), r"000001\.tar: longer than its index says"),
        (lambda f: (f / "000000.tar").unlink(), r"000000\.tar: missing"),
        (lambda f: (f / "000000.json").unlink(), r"000000\.json: missing"),
        (lambda f: (f / "000000.json").write_text("{"), r"000000\.json: cannot be read"),
        (lambda f: (f / "000000.json").write_text("{}"), r"index\.json: damaged"),
        (lambda f: (f / "000000.json").write_bytes((f / "000001.json").read_bytes()), r"000000\.tar: does not fit"),
        (lambda f: (f / "index.json").unlink() or (f / "prepare.json").touch(), "its shards are not finished"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(indexed, harm, message):
    harm(indexed)
    with pytest.raises(UserError, match=message):
        folders.find_images(indexed)


def test_another_checksum_is_another_data_set(indexed):
    before = listing_digest(folders.find_images(indexed).items())
    sha256 = json.loads((indexed / "000001.json").read_text())["sha256"]
    for path in indexed.glob("*.json"):
        path.write_text(path.read_text().replace(sha256, "0" * 64))
    assert listing_digest(folders.find_images(indexed).items()) != before


def test_labels_that_are_not_there_are_asked_for(folder):
    with pytest.raises(UserError, match='data.labels = "shards": c has no label in its shard'):
        shards.labels_of(folders.find_images(folder))
