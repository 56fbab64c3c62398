"""Files written whole or not at all, and what killed processes left."""

import os
import subprocess
import sys

import pytest

from sr3eval import files


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    files.atomic_write(tmp_path / "a", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.atomic_write(tmp_path / "a", b"new", durable=True)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_only_what_dead_processes_of_this_host_left_is_removed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = tmp_path / "deep" / f"{files.HOST}{process.pid}-x"
    alive = tmp_path / f"{files.HOST}{os.getpid()}-x"
    elsewhere = tmp_path / f"{files.TEMPORARY}other-{process.pid}-x"
    for path in (dead, alive, elsewhere):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    files.remove_unfinished(tmp_path)
    assert not dead.exists() and alive.exists() and elsewhere.exists()


def test_a_listing_knows_names_sizes_and_contents(tmp_path):
    contents = {"a": b"x" * 9000, "b": b""}
    paths = {name: tmp_path / name for name in contents}

    def digest(**changed):
        for name, content in (contents | changed).items():
            paths[name].write_bytes(content)
        return files.listing_digest(paths)

    first = digest()
    assert digest() == first
    assert files.listing_digest({"a": paths["a"]}) != first
    assert files.listing_digest({"c": paths["a"], "b": paths["b"]}) != first
    assert digest(a=b"x" * 9001) != first
    assert digest(a=b"x" * 8999 + b"y") != first
