"""What `sr3eval prepare` writes: the pixels that training reads, the same bytes always, and what goes wrong."""

import functools
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from collections import namedtuple

import psutil
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sr3eval import tasks
from sr3eval.cli import main
from sr3eval.data import Folder, split
from sr3eval.errors import UserError
from sr3eval.files import held
from sr3eval.folders import find_images
from sr3eval.images import load
from sr3eval.prepare import folder, processes, run, writer
from sr3eval.prepare.run import Settings, prepare
from sr3eval.shards import key_of
from tests.test_shards import write_tar

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def source(tmp_path, one_thread):
    """Nine images of several shapes and modes, a small one and a damaged one."""
    generator = torch.Generator().manual_seed(0)
    folder = tmp_path / "source"
    sizes = {f"a/{n}": (20 + 3 * n, 31) for n in range(8)} | {"b.v2": (17, 17), "small": (40, 15)}
    for name, (width, height) in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)
        image = Image.fromarray(pixels.numpy())
        image = image.convert("L") if name == "a/1" else image
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by 90 degrees
        options = {"exif": exif} if name == "a/3" else {}
        image.save(folder / f"{name}.{'jpg' if name == 'a/2' else 'png'}", **options)
    (folder / "bad é.png").write_bytes((folder / "a" / "0.png").read_bytes()[:200])
    return folder


def made(source, out, workers=1, tell=lambda *_: None, **options):
    return prepare(Settings("folder", source, **({"size": 16, "per_shard": 4} | options)), out, workers, tell=tell)


GOOD = [*(f"a/{n}" for n in range(8)), "b.v2"]


@pytest.mark.parametrize("task", [tasks.Task("t", 2, "square 16"), tasks.Task("u", 2, "square 14 of 16")])
def test_shards_give_what_the_folder_gives(source, tmp_path, task):
    made(source, tmp_path / "out")
    shards, folder = (Folder(find_images(path), task) for path in (tmp_path / "out", source))
    assert list(shards.paths) == GOOD
    assert all(torch.equal(shards.hr(i), folder.hr(i)) for i in GOOD)


def test_whole_images(source, tmp_path):
    index = made(source, tmp_path / "out", size=None)
    shards, folder = find_images(tmp_path / "out"), find_images(source)
    assert list(shards) == [*GOOD, "small"] and index["framing"] == "whole"
    assert all(torch.equal(load(shards[i]), load(folder[i])) for i in shards)


def test_what_is_left_out_is_counted_and_named(source, tmp_path):
    index = made(source, tmp_path / "out")
    assert (index["images"], index["left_out"]["too_small"]) == (9, 1)
    assert list(index["left_out"]["unreadable"]) == ["bad é"]
    assert index == json.loads((tmp_path / "out" / "index.json").read_text()) | {"classes": ()}
    text = run.summary(index)
    assert text.startswith("9 images, 3 shards, 1 left out as too small, 1 left out as unreadable, first ")
    assert "bad é.png: not a readable image" in text


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def forked(monkeypatch):
    """Processes that need not import PyTorch again."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: fork)


def test_bytes_depend_on_neither_processes_nor_interruptions(source, tmp_path, monkeypatch, forked):
    made(source, tmp_path / "one")
    made(source, tmp_path / "two", workers=2)
    expected = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == expected
    assert sorted(expected) == sorted(
        ["index.json", "prepare.json", *(f"{n:06}.{suffix}" for n in range(3) for suffix in ("tar", "json"))]
    )
    for name, content in expected.items():
        if name.endswith(".tar"):
            of = json.loads(expected[name.replace("tar", "json")])
            assert of["sha256"] == hashlib.sha256(content).hexdigest() and of["filesize"] == len(content)

    # Stopped in the second shard, then the last one's file is cut.
    def until_sixth(_stage, done, _total):
        if done == 6:
            raise KeyboardInterrupt

    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        made(source, broken, tell=until_sixth)
    assert sorted(contents(broken)) == ["000000.json", "000000.tar", "prepare.json"]
    with pytest.raises(UserError, match="its shards are not finished; run the same `sr3eval prepare` again"):
        find_images(broken)
    told = []
    made(source, broken, tell=lambda *step: told.append(step))
    assert told == [("prepare", done, 11) for done in range(4, 12)]
    assert contents(broken) == expected
    os.truncate(broken / "000002.tar", 512)
    told.clear()
    made(source, broken, tell=lambda *step: told.append(step))
    assert told == [("prepare", done, 11) for done in range(8, 12)]
    assert contents(broken) == expected


def test_an_interruption_stops_all_processes_within_an_image(source, tmp_path, monkeypatch, forked):
    """None of the shards that wait in a process's queue is begun."""

    def at_once(_stage, _done, _total):
        if multiprocessing.active_children():
            raise KeyboardInterrupt

    monkeypatch.setattr(processes, "_write", write_slowly)
    with pytest.raises(KeyboardInterrupt):
        made(source, tmp_path / "out", workers=2, per_shard=1, tell=at_once)
    assert sorted(contents(tmp_path / "out")) == ["prepare.json"]
    assert not multiprocessing.active_children()


def write_slowly(shard, write=processes._write):
    time.sleep(0.5)
    write(shard)


def test_a_killed_command_leaves_no_process_and_resumes(source, tmp_path):
    """A pipe without a writer holds one of its two processes in the first shard; it is not among the images tried."""
    for number in range(8, 20):
        shutil.copy(source / "a" / "0.png", source / "a" / f"{number}.png")
    (source / "a" / "1.png").rename(tmp_path / "1.png")
    os.mkfifo(source / "a" / "1.png")
    out = tmp_path / "out"
    options = ["--out", out, "--size", 16, "--per-shard", 4, "--workers", 2]
    command = [sys.executable, "-m", "sr3eval.cli", "prepare", "folder", source, *options]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(list(out.glob("*.json"))) == 1 + 5)  # all but the first of six
        workers = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    assert len(workers) >= 2 and psutil.wait_procs(workers, timeout=20)[1] == []
    assert not (out / "000000.json").exists() and any(path.name.startswith(".tmp-") for path in out.iterdir())
    (tmp_path / "1.png").replace(source / "a" / "1.png")
    with held(out):  # as the command does: it takes the killed one's lock, and leaves none
        made(source, out)
    made(source, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_image_that_was_mended_is_taken_in(source, tmp_path):
    made(source, tmp_path / "out")
    (source / "bad é.png").write_bytes((source / "a" / "0.png").read_bytes())
    index = made(source, tmp_path / "out")
    assert (index["images"], index["left_out"]["unreadable"]) == (10, {})
    assert "bad é" in find_images(tmp_path / "out")


def test_a_file_that_the_system_cannot_read_is_not_left_out(source, tmp_path):
    (source / "a" / "9.png").symlink_to("gone.png")
    with pytest.raises(
        UserError, match=r"9.png: cannot be read \(No such file or directory\); the same command resumes"
    ):
        made(source, tmp_path / "out")
    (source / "a" / "9.png").unlink()
    write_tar(tmp_path / "set" / "0.tar", {path.name: path.read_bytes() for path in sorted(source.glob("a/*.png"))})
    last = list(find_images(tmp_path / "set").values())[-1]

    def cut(stage, done, total):
        if done == 4:
            os.truncate(tmp_path / "set" / "0.tar", last.offset + 9)

    with pytest.raises(UserError, match=r"0\.tar: 7\.png: the shard is truncated; make or download it again"):
        made(tmp_path / "set", tmp_path / "cut", tell=cut)


def test_a_started_folder_takes_nothing_else(source, tmp_path):
    made(source, tmp_path / "out")
    with pytest.raises(UserError, match="out: holds a run of another config or other images"):
        made(source, tmp_path / "out", size=8)
    (source / "new.png").write_bytes((source / "a" / "0.png").read_bytes())
    with pytest.raises(UserError, match="holds a run of another config or other images"):
        made(source, tmp_path / "out")


def test_the_disk_is_stated_first_and_refused_if_too_small(source, tmp_path, monkeypatch):
    said = []
    prepare(Settings("folder", source, 16, per_shard=4), tmp_path / "out", 1, say=said.append)
    assert len(said) == 1 and re.match(r"11 images to prepare: about \d[\d.]* kB of disk, ", said[0])
    used = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar"))
    items = folder.find(source).items
    assert used / 3 < len(items) * run._mean_bytes(items, Settings("folder", source, 16).task) < used * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 100))
    with pytest.raises(UserError, match=r"about \d[\d.]* kB of disk are needed and 100 B are free; make room"):
        made(source, tmp_path / "full")
    assert not (tmp_path / "full").exists()


def test_splits_by_list_and_by_hash(source, tmp_path):
    (tmp_path / "held.txt").write_text("a/0.png\nb.v2\n\na/5\n")
    made(source, tmp_path / "v", split="validation", validation=str(tmp_path / "held.txt"))
    made(source, tmp_path / "t", split="training", validation=str(tmp_path / "held.txt"))
    assert list(find_images(tmp_path / "v")) == ["a/0", "a/5", "b.v2"]
    assert list(find_images(tmp_path / "t")) == [i for i in GOOD if i not in ("a/0", "a/5", "b.v2")]
    made(source, tmp_path / "h", split="validation", validation="0.5")
    held = split(list(find_images(source)), 0.5)[1]
    assert list(find_images(tmp_path / "h")) == [i for i in held if i in GOOD]
    with pytest.raises(UserError, match="--split training: needs --validation"):
        made(source, tmp_path / "n", split="training")
    with pytest.raises(UserError, match="--validation: needs --split"):
        made(source, tmp_path / "n", validation="0.5")
    (tmp_path / "held.txt").write_text("a/0\nz/0\nz/1\n")
    with pytest.raises(UserError, match=r"held.txt: 2 lines without an image \(first: z/0\)"):
        made(source, tmp_path / "n", split="training", validation=str(tmp_path / "held.txt"))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.text("a.%2Eé", min_size=1), min_size=1, max_size=3).map("/".join), unique=True))
def test_keys_are_as_different_as_ids_and_have_no_suffix(names):
    keys = [writer.key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(key_of(f"{key}.png") == (key, ".png") for key in keys)


def invoke(*arguments, command="prepare"):
    return CliRunner().invoke(main, [command, *map(str, arguments)])


def test_the_command(source, tmp_path):
    result = invoke("folder", source, "--out", tmp_path / "out", "--size", 16, "--workers", 1, "--verify")
    assert result.exit_code == 0, result.output
    assert "9 images, 1 shard, 1 left out as too small" in result.output
    same = invoke("folder", source, "--out", tmp_path / "same", "--task", "faces_16_128", "--workers", 1)
    assert same.exit_code == 1 and "no image is left (0 images, 1 shard, 10 left out as too small" in same.output
    damaged = (tmp_path / "out" / "000000.tar").read_bytes()
    (tmp_path / "out" / "000000.tar").write_bytes(damaged[:600] + b"x" + damaged[601:])
    result = invoke("folder", source, "--out", tmp_path / "out", "--size", 16, "--workers", 1, "--verify")
    assert result.exit_code == 1 and "000000.tar: is damaged, 1 of 1 shards are; delete them" in result.output
    alone = invoke(tmp_path / "out", command="verify-shards")
    assert alone.exit_code == 1 and "000000.tar: is damaged, 1 of 1 shards are; delete them" in alone.output
    (tmp_path / "out" / "000000.tar").unlink()
    assert invoke("folder", source, "--out", tmp_path / "out", "--size", 16, "--verify").exit_code == 0
    assert (tmp_path / "out" / "000000.tar").read_bytes() == damaged
    assert "all shards match their checksums" in invoke(tmp_path / "out", command="verify-shards").output
    assert "Missing option '--out'" in invoke("folder", source).output
    assert invoke("folder", source, "--out", tmp_path / "o", "--size", 8, "--task", "faces_16_128").exit_code == 2
    assert invoke("folder", tmp_path / "absent", "--out", tmp_path / "o").output.endswith(
        "absent: no such file or folder\n"
    )
    assert not (tmp_path / "o").exists()


def test_a_killed_process_is_told_in_one_line(source, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_begin", functools.partial(os._exit, 9))
    with pytest.raises(UserError, match="a process was killed, most likely because memory ran out"):
        made(source, tmp_path / "out", workers=2)
