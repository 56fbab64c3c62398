"""Files written whole or not at all, and what killed processes left."""

import errno
import os
import subprocess
import sys

import pytest

from sr3eval import files
from sr3eval.benchmark import run
from sr3eval.errors import UserError


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
        return files.listing_digest(paths.items())

    first = digest()
    assert digest() == first
    assert files.listing_digest([("a", paths["a"])]) != first
    assert files.listing_digest([("c", paths["a"]), ("b", paths["b"])]) != first
    assert digest(a=b"x" * 9001) != first
    assert digest(a=b"x" * 8999 + b"y") != first


HOLD = """
import sys, time
from pathlib import Path
from sr3eval.files import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a folder, and the folder."""
    folder = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process, folder
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_held_folder_is_refused_and_a_kill_lets_go(holder, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    process, folder = holder
    with pytest.raises(UserError, match="out: another process is working in it; wait"), files.held(folder):
        pass
    process.kill()
    monkeypatch.undo()
    with files.held(folder):
        assert folder.is_dir()


def test_a_folder_in_which_nothing_was_written_is_not_left(tmp_path):
    with files.held(tmp_path / "empty"):
        pass
    with files.held(tmp_path / "full"):
        (tmp_path / "full" / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_without_locks_the_work_is_done(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("sr3eval.files.fcntl.flock", flock)
    with files.held(tmp_path), files.held(tmp_path):
        pass
    assert caplog.messages == [f"{tmp_path}: its file system has no locks; let no other process work in it"]


def test_an_error_is_not_taken_for_a_file_system_without_locks(tmp_path, monkeypatch):
    """NFS gives EBADF for a lock on what is not open for writing."""

    def flock(descriptor, _how):
        assert os.write(descriptor, b"") == 0  # EBADF unless it is open for writing
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("sr3eval.files.fcntl.flock", flock)
    with pytest.raises(UserError, match=r"cannot be used \(Bad file descriptor\)"), files.held(tmp_path):
        pass


def test_what_a_killed_process_left_is_looked_for_where_its_lock_lies(tmp_path):
    left = tmp_path / f"{files.HOST}999999999-x"  # of no process that there is
    for killed in (False, True):
        left.touch()
        (tmp_path / files.LOCK).unlink(missing_ok=True)
        if killed:
            (tmp_path / files.LOCK).touch()
        with files.held(tmp_path):
            files.claim_folder(tmp_path, "config", "x")
        assert left.exists() is not killed
    left.touch()
    files.claim_folder(tmp_path, "config", "x")  # in a folder that nobody holds
    assert not left.exists()


def test_a_file_that_is_being_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    held, refused = files.held_file(tmp_path / "a.npz"), pytest.raises(UserError, match=r"a\.npz: another process is")
    with held, files.held_file(tmp_path / "b.npz"), refused, files.held_file(tmp_path / "a.npz"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/out: cannot be used"), files.held(tmp_path / "file" / "out"):
        pass


def test_two_runs_in_one_folder_at_once_are_refused(holder, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    _, folder = holder
    config = {"task": "photos_16_64", "metrics": ["psnr"], "method": [{"kind": "bicubic"}]}
    config["data"] = {"images": "sr3eval:assets/photos_16_64", "limit": 1}
    with pytest.raises(UserError, match="another process is working in it"):
        run(config, folder)
    assert [path.name for path in folder.iterdir()] == [files.LOCK]  # of who holds it
