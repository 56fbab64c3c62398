"""The cache: what its entries say, damage found by checksum, room taken once, and what no run needs taken out."""

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
import torch
from click.testing import CliRunner

from benchmark import main
from sr3eval.benchmark import run
from sr3eval.files import link_or_write
from sr3eval.images import save

ROOT = Path(__file__).parents[2]
OWN = """
import torch
class Noisy:
    name, scale, stochastic = "noisy", 4, True
    def upscale(self, lr, seeds):
        open(__file__ + ".log", "a").write("x" * len(seeds))
        sr = lr.repeat_interleave(4, -1).repeat_interleave(4, -2)
        noise = [torch.randn(sr.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]
        return (sr + 0.05 * torch.stack(noise)).clamp(0, 1)
def build(): return Noisy()
"""


@pytest.fixture
def world(tmp_path, one_thread):
    generator = torch.Generator().manual_seed(0)
    for index in range(6):
        save(tmp_path / "images" / f"{index}.png", torch.rand(3, 64, 64, generator=generator))
    (tmp_path / "mine.py").write_text(OWN)
    return tmp_path


def config(world, **changes):
    mine = {"name": "mine", "python": f"{world / 'mine.py'}:build", "deterministic": False}  # no batch is made twice
    data = {"images": str(world / "images")}
    plain = {"task": "photos_16_64", "batch_size": 1, "metrics": ["psnr"], "data": data, "method": [mine]}
    return plain | changes


def started(world, out="run", **changes):
    run(config(world, **changes), world / out, world / "cache")
    return world / out


def made(world):
    """How many images the method has made so far."""
    return len((world / "mine.py.log").read_text())


def command(*arguments):
    result = CliRunner().invoke(main, ["cache", *map(str, arguments)])
    return result.exit_code, result.output.splitlines()


def entries(world, suffix="png"):
    return sorted((world / "cache").rglob(f"*.{suffix}"))


def pictures(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted((folder / "images").rglob("*.png"))}


def test_entries_say_what_they_are_of(world):
    folder = started(world)
    for path in entries(world):
        entry = json.loads(path.with_suffix(".json").read_text())
        assert entry["origin"] == {"method": "mine", "task": "photos_16_64", "run": str(folder)}
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    size = sum(path.stat().st_size for path in (world / "cache").rglob("*.*"))
    code, lines = command(world / "cache")
    assert (code, lines[0].split()) == (0, ["method", "task", "entries", "size", "only", "here", "runs"])
    assert lines[1].split()[:3] == ["mine", "photos_16_64", "6"] and lines[1].endswith(str(folder))
    assert re.fullmatch(rf"6 entries, {size / 1000:.3g} kB, of which \d.* only here", lines[-1])


@pytest.mark.parametrize("damage", ["a bit", "cut", "note"])
def test_damage_is_found_by_checksum_and_made_again(world, damage):
    folder = started(world)
    before, victim = pictures(folder), entries(world)[0]
    content = bytearray(victim.read_bytes())
    if damage == "a bit":
        content[30] ^= 1  # in a checksum of the PNG's first chunk, which decoders may pass over
    victim.unlink()
    victim.write_bytes(content[:-20] if damage == "cut" else content)
    if damage == "note":
        victim.with_suffix(".json").write_text("{")
    assert pictures(started(world)) == before
    assert (
        made(world) == 7 and command(world / "cache", "--verify")[1][0] == "6 entries verified, 0 damaged and removed"
    )


def test_verify_removes_what_is_damaged_or_half_there(world):
    folder = started(world)
    before, files = pictures(folder), entries(world)
    for path, content in ((files[0], b"other"), (files[1], files[2].read_bytes())):
        path.unlink()
        path.write_bytes(content)
    files[3].unlink()
    code, lines = command(world / "cache", "--verify")
    assert (code, lines[0]) == (0, "6 entries verified, 3 damaged and removed")
    assert len(entries(world)) == len(entries(world, "json")) == 3
    assert pictures(started(world)) == before and made(world) == 9


def test_entries_of_before_are_of_use_and_unknown(world):
    """Their JSON is the note alone: they are read to their end, as before."""
    started(world)
    for path in entries(world, "json"):
        path.write_text('{"converged": true}')
    files = entries(world)
    started(world, "other")
    assert made(world) == 6
    notes = [json.loads(path.read_text()) for path in (world / "other" / "images" / "mine").glob("*.json")]
    assert notes == [{"converged": True}] * 6
    assert command(world / "cache")[1][1].split()[:3] == ["unknown", "unknown", "6"]
    content = files[0].read_bytes()
    files[0].unlink()
    files[0].write_bytes(content[:-20])
    assert command(world / "cache", "--verify")[1][0] == "6 entries verified, 1 damaged and removed"


def test_pictures_take_their_room_once(world):
    """A run's pictures are the cache's own files; what is made anew has a name of its own, and changes none of them."""
    folder = started(world)
    other = started(world, "other")
    names = sorted((folder / "images" / "mine").glob("*.png"))
    assert {path.stat().st_nlink for path in names} == {3}
    for path in names:
        assert path.samefile(other / "images" / "mine" / path.name)
    before, victim = pictures(folder), entries(world)[0]
    victim.unlink()
    victim.write_bytes(b"damaged")
    assert pictures(folder) == before
    save(names[1], torch.zeros(3, 64, 64))  # a picture that is exchanged is put back, and is nobody else's
    assert pictures(other) == before
    assert pictures(started(world)) == before == pictures(other)


def test_copies_are_written_where_there_are_no_links(world, monkeypatch):
    linked = pictures(started(world))

    def refuse(path, target):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    folder = started(world, "copies")
    assert pictures(folder) == linked
    assert {path.stat().st_nlink for path in (folder / "images" / "mine").glob("*.png")} == {1}


def test_a_link_replaces_a_file_and_leaves_nothing_else(tmp_path):
    source, path = tmp_path / "source", tmp_path / "folder" / "path"
    source.write_bytes(b"new")
    path.parent.mkdir()
    path.write_bytes(b"old")
    for _ in range(2):  # the second time it is that file already
        link_or_write(path, b"new", source)
        assert path.samefile(source) and [p.name for p in path.parent.iterdir()] == ["path"]
    link_or_write(path, b"newer", tmp_path / "missing")
    assert (path.read_bytes(), source.read_bytes()) == (b"newer", b"new")


def test_what_no_run_needs_is_listed_then_removed(world):
    """Runs of other seeds and samples: the entries that remain are those that the kept ones look up."""
    mine = config(world)["method"][0]
    several = started(world, "several", method=[mine | {"samples": 2}, mine | {"name": "seeded", "seeds": [7, 8]}])
    started(world, "other", seed=5)
    before = len(entries(world))
    assert before == 6 * (2 + 2 + 1)
    code, lines = command(world / "cache", "--keep", several)
    assert code == 0 and lines[1].split()[:3] == ["mine", "photos_16_64", "6"]
    assert lines[-1] == "None of the kept runs needs these; --prune removes them." and len(entries(world)) == before
    code, lines = command(world / "cache", "--keep", several, "--prune")
    assert (code, lines[-1]) == (0, "Removed.") and len(entries(world)) == 24
    count = made(world)
    started(world, "again", method=[mine | {"samples": 2}, mine | {"name": "seeded", "seeds": [7, 8]}])
    assert made(world) == count
    started(world, "other", seed=5)
    assert made(world) == count + 6


def test_what_would_be_wrong_is_refused(world):
    folder = started(world)
    before = entries(world)
    cache = world / "cache"

    def refused(*arguments):
        code, lines = command(*arguments)
        assert code != 0 and entries(world) == before
        return lines[-1]

    assert "--prune needs --keep RUN" in refused(cache, "--prune")
    assert "not a cache of outputs" in refused(world / "images", "--keep", folder, "--prune")
    assert "no such folder" in refused(world / "nothing")
    assert "not the folder of a run" in refused(cache, "--keep", world / "images", "--prune")
    (folder / "images.sha256").rename(folder / "images.sha256.partial")
    assert "its inputs are not all prepared" in refused(cache, "--keep", folder, "--prune")
    (folder / "images.sha256.partial").rename(folder / "images.sha256")
    elsewhere = world / "elsewhere"
    run(config(world, seed=9), elsewhere, world / "another cache")
    assert "it has another cache" in refused(cache, "--keep", folder, "--keep", elsewhere, "--prune")
    environment = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(environment | {"sr3eval": "0.0.1"}))
    assert "a run of sr3eval 0.0.1" in refused(cache, "--keep", folder, "--prune")


def test_two_runs_at_once_tear_nothing(world):
    """Both make the same outputs: each has them whole, and so has the cache."""
    (world / "config.toml").write_text(tomli_w.dumps(config(world)))
    outs = [world / "first", world / "second"]
    line = [sys.executable, ROOT / "benchmark.py", "run", world / "config.toml", "--cache", world / "cache", "--out"]
    both = [subprocess.Popen([*line, out], env=os.environ | {"OMP_NUM_THREADS": "1"}) for out in outs]
    assert [process.wait(120) for process in both] == [0, 0]
    first, second = map(pictures, outs)
    assert first == second == pictures(started(world, "alone"))
    assert command(world / "cache", "--verify")[1][0] == "6 entries verified, 0 damaged and removed"
    assert not list(world.rglob(".tmp-*"))
