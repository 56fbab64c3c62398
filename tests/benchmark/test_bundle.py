"""`benchmark.py bundle`: a run in a zip file that others verify and put into tables, and zips that are refused."""

import hashlib
import json
import stat
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import benchmark
from sr3eval.benchmark import bundle, card, run
from sr3eval.benchmark.layout import RunFolder
from sr3eval.errors import UserError

NAMES = ("animals/a", "b", "c")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two people's runs of the same images, which one of them has as BMP files; and the first one's bundle."""
    world = tmp_path_factory.mktemp("bundle")
    rng = np.random.default_rng(0)
    for name in NAMES:
        image = Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))
        for path in (world / f"alice/hr/{name}.png", world / f"bob/hr/{name}.bmp"):
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        theirs = world / f"alice/theirs/{name}.png"
        theirs.parent.mkdir(parents=True, exist_ok=True)
        image.rotate(180).save(theirs)
    methods = {
        "alice": [
            {"name": "hers", "kind": "precomputed", "folder": str(world / "alice/theirs")},
            {"kind": "reference"},
        ],
        "bob": [{"kind": "bicubic"}],
    }
    for who, of in methods.items():
        config = {"task": {"scale": 4}, "metrics": ["psnr"], "data": {"images": str(world / who / "hr")}, "method": of}
        run(config, world / who / "run", world / who / "cache")
    bundle.write(world / "alice/run", world / "alice/paper.zip")
    return world


def invoke(*arguments):
    result = CliRunner().invoke(benchmark.main, [*map(str, arguments)])
    return result.exit_code, result.output


def test_the_same_run_gives_the_same_bytes_and_no_input(world, tmp_path):
    code, output = invoke("bundle", world / "alice/run", "--out", tmp_path / "again.zip")
    assert code == 0 and output.split()[0] == hashlib.sha256((tmp_path / "again.zip").read_bytes()).hexdigest()
    assert (tmp_path / "again.zip").read_bytes() == (world / "alice/paper.zip").read_bytes()
    with zipfile.ZipFile(world / "alice/paper.zip") as archive:
        assert {name.split("/")[1] for name in archive.namelist() if name.startswith("images/")} == {"hers"}
    code, output = invoke("bundle", world / "alice/run", "--out", tmp_path / "again.zip")
    assert (code, output) == (1, f"Error: {tmp_path}/again.zip: already exists; give another name\n")


def test_a_foreign_bundle_is_a_row_of_ones_own_table(world, tmp_path):
    code, output = invoke("table", world / "bob/run", world / "alice/paper.zip", "--out", tmp_path / "both")
    assert code == 0, output
    results = card.read(tmp_path / "both/results.json")
    assert set(results.results["x4"][""]) == {"bicubic", "hers", "reference"}
    assert [each.name for each in results.runs] == ["run", "paper"]
    own = card.read(world / "alice/run/results.json").results["x4"][""]["hers"]["psnr"].value
    assert results.results["x4"][""]["hers"]["psnr"].value == own and "| hers " in output
    code, output = invoke("table", world / "alice/paper.zip", "--out", tmp_path / "one")
    assert code == 0 and not (tmp_path / "one/report.html").exists()


def test_a_bundle_is_verified_with_and_without_inputs(world, tmp_path):
    code, output = invoke("verify", world / "alice/paper.zip")
    assert code == 0 and "Not checked: pictures and their scores: its inputs are not here" in output
    code, output = invoke("verify", world / "alice/paper.zip", "--inputs", world / "bob/run", "--sample", 3)
    assert code == 0 and "Scores: 6, of 3 images, computed again." in output and "Not checked" not in output, output
    code, output = invoke("bundle", world / "alice/run", "--out", tmp_path / "whole.zip", "--with-inputs")
    code, output = invoke("verify", tmp_path / "whole.zip", "--sample", 3)
    assert code == 0 and "Scores: 6, of 3 images" in output


def altered(source, target, name=None, content=None, **more):
    """A copy of a bundle in which one file has other content, and its manifest with it if `sums`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        manifest = json.loads(old.read("manifest.json"))
        for member in old.namelist():
            given = content if member == name else old.read(member)
            manifest["sha256"][member] = hashlib.sha256(given).hexdigest()
            if member != "manifest.json":
                new.writestr(member, given)
        del manifest["sha256"]["manifest.json"]
        for extra, given in more.items():
            new.writestr(extra, given)
            manifest["sha256"][extra] = hashlib.sha256(given).hexdigest()
        new.writestr("manifest.json", json.dumps(manifest))
    return target


def test_one_altered_score_with_a_new_manifest_is_found(world, tmp_path):
    scores = (world / "alice/run/per_image.csv").read_text().splitlines()
    line = next(i for i, line in enumerate(scores) if ",hers,b," in line)
    fields = scores[line].split(",")
    fields[4] = str(float(fields[4]) + 0.001)
    scores[line] = ",".join(fields)
    forged = altered(world / "alice/paper.zip", tmp_path / "f.zip", "per_image.csv", "\n".join(scores).encode())
    code, output = invoke("verify", forged, "--inputs", world / "bob/run", "--sample", 3)
    assert code == 1 and "WRONG: psnr of hers, b: " in output and "WRONG: per_image.csv: not what" in output


def test_another_set_of_images_does_not_stand_for_the_bundles_inputs(world, tmp_path):
    images = world / "bob/hr"
    config = {"task": {"scale": 4}, "metrics": ["psnr"], "data": {"images": str(images), "limit": 2}}
    run(config | {"method": [{"kind": "bicubic"}]}, tmp_path / "run", tmp_path / "cache")
    code, output = invoke("verify", world / "alice/paper.zip", "--inputs", tmp_path / "run")
    assert (code, output) == (1, f"Error: {tmp_path}/run: has other images than the bundle\n")


@pytest.mark.parametrize(
    "name", ["../outside.csv", "/tmp/outside.csv", "images/../../outside.png", "images\\x.png", "x.sh"]
)
def test_files_outside_are_refused(world, tmp_path, name):
    bad = altered(world / "alice/paper.zip", tmp_path / "bad.zip", **{name: b"x"})
    with pytest.raises(UserError, match="has no place in a bundle; nothing was unpacked"), bundle.opened(bad):
        pass


def test_a_link_is_refused(world, tmp_path):
    bad = altered(world / "alice/paper.zip", tmp_path / "bad.zip")
    with zipfile.ZipFile(bad, "a") as archive:
        link = zipfile.ZipInfo("images/hers/z.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="'images/hers/z.png' has no place in a bundle"), bundle.opened(bad):
        pass


def test_zips_that_grow_are_refused_before_they_do(world, tmp_path):
    bomb = altered(world / "alice/paper.zip", tmp_path / "bomb.zip", **{"images/x/0.png": bytes(50_000_000)})
    code, output = invoke("verify", bomb)
    assert code == 1 and "bomb.zip: would unpack to 50," in output and output.count("\n") == 1


def test_damage_is_one_line(world, tmp_path):
    whole = (world / "alice/paper.zip").read_bytes()
    picture = RunFolder(world / "alice/run").image("hers", "b").read_bytes()
    at = whole.index(picture) + len(picture) // 2
    damaged = {
        "flipped": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
        "cut": whole[: len(whole) // 2],
        "text": b"no zip",
    }
    for name, content in damaged.items():
        (tmp_path / f"{name}.zip").write_bytes(content)
        code, output = invoke("verify", tmp_path / f"{name}.zip")
        assert code == 1 and output.startswith(f"Error: {tmp_path}/{name}.zip: not a readable zip file"), output
    other = altered(world / "alice/paper.zip", tmp_path / "other.zip")
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("images/hers/z.png", b"")
    assert invoke("table", other)[1] == f"Error: {other}: has other files than its manifest.json names\n"
