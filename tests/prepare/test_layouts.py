"""Miniature copies of the layouts in which data sets are published."""

import hashlib
import io
import json
import os
import tarfile

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from sr3eval.errors import UserError
from sr3eval.folders import find_images
from sr3eval.images import load, to_uint8
from sr3eval.prepare.run import Settings, prepare
from sr3eval.shards import labels_of


def pixels(seed, size=16):
    """[size, size, 3] whose squares of 2 pixels are of one colour: its half is the same for every way of averaging."""
    return np.random.default_rng(seed).integers(0, 256, (size // 2, size // 2, 3), np.uint8).repeat(2, 0).repeat(2, 1)


def half(seed, size=16):
    """The [3, size / 2, size / 2] that a square of 8 pixels is of `pixels`."""
    return torch.from_numpy(pixels(seed, size)[::2, ::2].transpose(2, 0, 1).copy())


def encoded(array, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, quality=95)
    return buffer.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def made(kind, source, out, tell=lambda *_: None, **options):
    """{image id: uint8 pixels} of the shards that are made."""
    prepare(Settings(kind, source, 8, incomplete=True, **options), out, workers=1, tell=tell)
    return {image_id: to_uint8(load(file)) for image_id, file in find_images(out).items()}


def equal(found, expected):
    return list(found) == sorted(expected) and all(torch.equal(found[i], expected[i]) for i in expected)


NUMBERS = (0, 1, 59_999, 60_000, 69_999)


@pytest.fixture
def ffhq(tmp_path):
    for number in NUMBERS:
        folder = f"{number // 1000 * 1000:05}"
        put(tmp_path / "ffhq" / "images1024x1024" / folder / f"{number:05}.png", encoded(pixels(number)))
        put(tmp_path / "ffhq" / "thumbnails128x128" / folder / f"{number:05}.png", encoded(pixels(9)))
    return tmp_path / "ffhq"


def describe(ffhq, **changed):
    """ffhq-dataset-v2.json, in which the last image is for training."""
    files = {int(p.stem): p for p in (ffhq / "images1024x1024").rglob("*.png")}
    found = {
        str(number): {
            "category": "validation" if number == 60_000 else "training",
            "metadata": {"photo_title": "x"},
            "image": {"file_md5": hashlib.md5(path.read_bytes()).hexdigest(), "face_landmarks": [[0.5, 1.0]]},
            "in_the_wild": {"file_md5": "0"},
        }
        for number, path in files.items()
    }
    for number, md5 in changed.items():
        found[number]["image"]["file_md5"] = md5
    (ffhq / "ffhq-dataset-v2.json").write_text(json.dumps(found))


def test_ffhq_from_its_folder(ffhq, tmp_path):
    expected = {f"{n // 1000 * 1000:05}/{n:05}": half(n) for n in NUMBERS}
    assert equal(made("ffhq", ffhq, tmp_path / "out"), expected)
    assert equal(made("ffhq", ffhq / "images1024x1024", tmp_path / "again"), expected)
    training = made("ffhq", ffhq, tmp_path / "training", split="training")
    assert list(training) == ["00000/00000", "00000/00001", "59000/59999"]
    assert list(made("ffhq", ffhq, tmp_path / "held", split="validation")) == ["60000/60000", "69000/69999"]


def test_ffhq_with_its_metadata(ffhq, tmp_path):
    """The split is that of the file, and a PNG of another checksum is left out and named."""
    describe(ffhq, **{"1": "0" * 32})
    assert list(made("ffhq", ffhq, tmp_path / "held", split="validation")) == ["60000/60000"]
    training = made("ffhq", ffhq, tmp_path / "training", split="training")
    assert list(training) == ["00000/00000", "59000/59999", "69000/69999"]
    left_out = json.loads((tmp_path / "training" / "index.json").read_text())["left_out"]
    assert list(left_out["unreadable"]) == ["00000/00001"]
    assert "00001.png: its md5 is not the published 000" in left_out["unreadable"]["00000/00001"]


def test_another_number_of_images_than_published_is_refused(ffhq, tmp_path):
    with pytest.raises(
        UserError, match=r"has 5 images; ffhq has 70,000. Complete it, or accept that with --incomplete"
    ):
        prepare(Settings("ffhq", ffhq, 8), tmp_path / "out", 1)
    with pytest.raises(UserError, match="has 2 images for validation; ffhq has 10,000"):
        prepare(Settings("ffhq", ffhq, 8, split="validation"), tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


def test_of_a_split_that_is_not_the_publishers_the_whole_is_counted(ffhq, tmp_path, monkeypatch):
    monkeypatch.setattr("sr3eval.prepare.ffhq.PUBLISHED", {"all": 5, "training": 60_000})
    (tmp_path / "held.txt").write_text("00000/00000\n")
    own = Settings("ffhq", ffhq, 8, split="training", validation=str(tmp_path / "held.txt"))
    assert prepare(own, tmp_path / "out", 1)["images"] == 4
    (ffhq / "images1024x1024" / "69000" / "69999.png").unlink()
    with pytest.raises(UserError, match="has 4 images; ffhq has 5"):
        prepare(own, tmp_path / "none", 1)


def test_files_that_are_not_ffhqs_are_named(ffhq, tmp_path):
    put(ffhq / "images1024x1024" / "x.png", encoded(pixels(0)))
    with pytest.raises(UserError, match="x is not named by a number"):
        made("ffhq", ffhq, tmp_path / "out")
    (ffhq / "ffhq-dataset-v2.json").write_text("[]")
    with pytest.raises(UserError, match="ffhq-dataset-v2.json: not FFHQ's metadata"):
        made("ffhq", ffhq, tmp_path / "out")


def test_celeba_hq_from_files(tmp_path):
    for number in range(3):
        put(tmp_path / "set" / "CelebA-HQ-img" / f"{number}.png", encoded(pixels(number)))
        put(tmp_path / "set" / "CelebAMask-HQ-mask-anno" / f"{number}_hair.png", encoded(pixels(9)))
    assert equal(made("celeba_hq", tmp_path / "set", tmp_path / "out"), {str(n): half(n) for n in range(3)})


def test_celeba_hq_from_npy_files(tmp_path):
    (tmp_path / "set").mkdir()
    for number in range(3):
        np.save(tmp_path / "set" / f"imgHQ{number:05}.npy", pixels(number).transpose(2, 0, 1)[None])
    assert equal(made("celeba_hq", tmp_path / "set", tmp_path / "out"), {f"imgHQ{n:05}": half(n) for n in range(3)})


@pytest.mark.parametrize("order", ["C", "F"])
def test_celeba_hq_from_an_npz_file(tmp_path, order):
    images = np.asarray(np.stack([pixels(n) for n in range(3)]), order=order)
    np.savez(tmp_path / "set.npz", labels=np.arange(3), arr_0=images)
    assert equal(made("celeba_hq", tmp_path / "set.npz", tmp_path / "out"), {f"{n:05}": half(n) for n in range(3)})
    np.savez_compressed(tmp_path / "packed.npz", images)
    with pytest.raises(UserError, match=r"packed.npz: is compressed .* write it with numpy.savez"):
        made("celeba_hq", tmp_path / "packed.npz", tmp_path / "none")
    np.savez(tmp_path / "floats.npz", images / 255)
    with pytest.raises(UserError, match=r"floats.npz: holds float64 \(3, 16, 16, 3\), not uint8"):
        made("celeba_hq", tmp_path / "floats.npz", tmp_path / "none")


def database(path, values):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path), map_size=1 << 24) as opened, opened.begin(write=True) as transaction:
        for key, value in (values | {"length": b"3"}).items():
            transaction.put(key.encode(), value)
    return path


def test_celeba_hq_from_databases(tmp_path):
    """Of StyleGAN2's the largest size, of SR3's reimplementation the HR pictures."""
    small, large = ({n: encoded(pixels(n, size)) for n in range(3)} for size in (8, 16))
    stylegan = {f"{size}-{n:05}": v for size, of in ((8, small), (16, large)) for n, v in of.items()}
    sr3 = {f"{kind}_{n:05}": of[n] for kind, of in (("hr_16", large), ("sr_8_16", small), ("lr_8", small)) for n in of}
    for name, values in (("stylegan", stylegan), ("sr3", sr3)):
        source = database(tmp_path / name, values)
        expected = {f"{n:05}": half(n) for n in range(3)}
        assert equal(made("celeba_hq", source, tmp_path / f"{name}_out"), expected)
        assert equal(made("celeba_hq", source / "data.mdb", tmp_path / f"{name}_file"), expected)


def test_a_truncated_database_is_named(tmp_path):
    """Not by the signal that ends a process which reads behind the end of a mapped file."""
    database(tmp_path / "set", {f"16-{n:05}": encoded(pixels(n, 64)) for n in range(9)})
    os.truncate(tmp_path / "set" / "data.mdb", 40_960)
    with pytest.raises(UserError, match=r"set: not a readable LMDB database \(data.mdb is truncated\)"):
        made("celeba_hq", tmp_path / "set", tmp_path / "out")
    put(tmp_path / "other" / "data.mdb", b"x" * 40_960)
    with pytest.raises(UserError, match=r"other: not a readable LMDB database \("):
        made("celeba_hq", tmp_path / "other", tmp_path / "out")


def test_lmdb_that_is_not_installed_is_named(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from sr3eval.cli import main

    put(tmp_path / "set" / "data.mdb", b"x")
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    arguments = ["prepare", "celeba_hq", str(tmp_path / "set"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.output) == (1, "Error: lmdb is not installed: pip install 'sr3eval[prepare]'\n")


SYNSETS = {"n01440764": ["n01440764_10026", "n01440764_9"], "n15075141": ["n15075141_7"]}
TRAINING = {f"{synset}/{name}": seed for seed, (synset, name) in enumerate((s, n) for s in SYNSETS for n in SYNSETS[s])}


def synset_tars():
    """PNG bytes under ImageNet's names, so that pixels are exact; the format is told by the content."""
    return {
        f"{s}.tar": tar({f"{name}.JPEG": encoded(pixels(TRAINING[f"{s}/{name}"])) for name in names})
        for s, names in SYNSETS.items()
    }


def check_training(source, out, tell=lambda *_: None):
    assert equal(made("imagenet", source, out, tell), {name: half(seed) for name, seed in TRAINING.items()})
    assert labels_of(find_images(out)) == {name: name.partition("/")[0] for name in TRAINING}
    with tarfile.open(out / "000000.tar") as archive:
        names = archive.getnames()
        assert names[:2] == ["n01440764/n01440764_10026.png", "n01440764/n01440764_10026.cls"]
        assert archive.extractfile("n15075141/n15075141_7.cls").read() == b"1"


def test_imagenet_training_tar_of_tars(tmp_path):
    put(tmp_path / "ILSVRC2012_img_train.tar", tar(synset_tars()))
    stages = []
    check_training(tmp_path / "ILSVRC2012_img_train.tar", tmp_path / "out", lambda stage, *_: stages.append(stage))
    assert stages[: len(SYNSETS)] == ["list, MB"] * len(SYNSETS) and set(stages) == {"list, MB", "prepare"}


def test_imagenet_training_tars_and_folders(tmp_path):
    for name, content in synset_tars().items():
        put(tmp_path / "tars" / name, content)
        with tarfile.open(tmp_path / "tars" / name) as archive:
            archive.extractall(tmp_path / "folders" / name.removesuffix(".tar"), filter="data")
    check_training(tmp_path / "tars", tmp_path / "from_tars")
    check_training(tmp_path / "folders", tmp_path / "from_folders")
    assert (tmp_path / "from_tars/000000.tar").read_bytes() == (tmp_path / "from_folders/000000.tar").read_bytes()


def test_what_is_not_imagenet_is_named(tmp_path):
    put(tmp_path / "notes.tar", tar({"notes.txt": b"x"}))
    with pytest.raises(UserError, match=r"notes\.tar: no images in it"):
        made("imagenet", tmp_path / "notes.tar", tmp_path / "out")
    put(tmp_path / "flat" / "n01440764_9.JPEG", encoded(pixels(0)))
    with pytest.raises(UserError, match="flat: n01440764_9 is neither in a synset"):
        made("imagenet", tmp_path / "flat", tmp_path / "out")
    put(tmp_path / "twice" / "n01440764.tar", tar({"a.JPEG": encoded(pixels(0)), "a.png": encoded(pixels(1))}))
    with pytest.raises(UserError, match=r'two images share the id "n01440764/a" \(a\.JPEG, a\.png\)'):
        made("imagenet", tmp_path / "twice", tmp_path / "out")


VALIDATION = ["n15075141", "n01440764", "n15075141"]  # of ILSVRC2012_val_00000001 to 3


@pytest.fixture
def validation(tmp_path):
    files = {f"ILSVRC2012_val_{n + 1:08}.JPEG": encoded(pixels(n)) for n in range(3)}
    put(tmp_path / "ILSVRC2012_img_val.tar", tar(dict(reversed(files.items()))))
    for name, content in files.items():
        put(tmp_path / "val" / name, content)
    return tmp_path


def devkit(path):
    """ILSVRC2012_devkit_t12.tar.gz: the ground truth has numbers, meta.mat their synsets among other nodes."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    table = np.array([(1, "n15075141", "paper", 0), (2, "n01440764", "tench", 0), (1001, "n00001740", "x", 2)], kind)
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": table.reshape(-1, 1)})
    folder = "ILSVRC2012_devkit_t12/data"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("meta.mat", meta.getvalue()), ("ILSVRC2012_validation_ground_truth.txt", b"1\n2\n1\n")):
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def listed(path):
    path.write_text("\n".join(VALIDATION) + "\n")


def kaggles(path):
    rows = [f"ILSVRC2012_val_{n + 1:08},{VALIDATION[n]} 85 1 499 272 " for n in (2, 0, 1)]
    path.write_text("\n".join(["ImageId,PredictionString", *rows]))


@pytest.mark.parametrize(("name", "write"), [("k.tar.gz", devkit), ("synsets.txt", listed), ("LOC.csv", kaggles)])
@pytest.mark.parametrize("source", ["ILSVRC2012_img_val.tar", "val"])
def test_imagenet_validation_images(validation, source, name, write):
    write(validation / name)
    found = made("imagenet", validation / source, validation / "out", labels=str(validation / name))
    assert equal(found, {f"{VALIDATION[n]}/ILSVRC2012_val_{n + 1:08}": half(n) for n in range(3)})
    assert list(labels_of(find_images(validation / "out")).values()) == sorted(VALIDATION)


def test_imagenet_validation_without_synsets(validation):
    with pytest.raises(UserError, match="are not in their names: give --labels ILSVRC2012_devkit_t12.tar.gz"):
        made("imagenet", validation / "val", validation / "out")
    (validation / "short.txt").write_text("n01440764\n")
    with pytest.raises(UserError, match="short.txt has no entry for ILSVRC2012_val_00000002"):
        made("imagenet", validation / "val", validation / "out", labels=str(validation / "short.txt"))
    (validation / "numbers.txt").write_text("490\n361\n")
    with pytest.raises(UserError, match='numbers.txt: "490" names no synset'):
        made("imagenet", validation / "val", validation / "out", labels=str(validation / "numbers.txt"))
    put(validation / "other" / "photo.png", encoded(pixels(0)))
    with pytest.raises(UserError, match="other: photo is neither in a synset"):
        made("imagenet", validation / "other", validation / "out")


def test_a_published_archive_of_another_checksum_is_refused(tmp_path):
    put(tmp_path / "ILSVRC2012_img_train.tar", tar(synset_tars()))
    settings = Settings("imagenet", tmp_path / "ILSVRC2012_img_train.tar", 8, incomplete=True)
    with pytest.raises(UserError, match="its md5 is not the published 1d675b47d978889d74fa0da5fadfb00e"):
        prepare(settings, tmp_path / "out", 1, verify=True)
    assert not (tmp_path / "out").exists()


def test_labels_of_a_folder(tmp_path):
    for name in ("cat/a", "dog/b"):
        put(tmp_path / "set" / f"{name}.png", encoded(pixels(0)))
    made("folder", tmp_path / "set", tmp_path / "plain")
    assert {file.label for file in find_images(tmp_path / "plain").values()} == {None}
    made("folder", tmp_path / "set", tmp_path / "folders", labels="folders")
    assert labels_of(find_images(tmp_path / "folders")) == {"cat/a": "cat", "dog/b": "dog"}
    made("folder", tmp_path / "folders", tmp_path / "again")  # shards bring theirs
    assert labels_of(find_images(tmp_path / "again")) == {"cat/a": "cat", "dog/b": "dog"}
    (tmp_path / "l.csv").write_text("image_id,label\ncat/a,x\n")
    with pytest.raises(UserError, match="dog/b has no label, although others have one"):
        made("folder", tmp_path / "set", tmp_path / "none", labels=str(tmp_path / "l.csv"))
