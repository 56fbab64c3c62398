"""What a disk, a folder, a signal or a name can do to a command: one clear line, or the right result; nothing torn."""

import errno
import importlib
import json
import os
import resource
import shutil
import signal
import unicodedata
from contextlib import contextmanager

import pytest
import safetensors
import tomli_w
import torch
from click.testing import CliRunner
from PIL import Image

from sr3eval import cli, commands, files
from sr3eval.config import from_dict
from sr3eval.console import REMEDIES
from sr3eval.diffusion.train import train
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.errors import UserError, out_of_memory
from sr3eval.files import atomic_write, held
from sr3eval.images import header_size, load, save

GENERATOR = "sr3eval:assets/generator_photos_16.safetensors"
UNET = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "image_size": 16, "attention": [], "middle_attention": False}
OPTIMISER = {"steps": 4, "batch_size": 6, "learning_rate": 1e-3, "warmup_steps": 2}
NAMES = ("train", "sample", "cascade", "search", "run")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Of a small SR3."""
    place = tmp_path_factory.mktemp("checkpoint")
    settings = training_of(photographs(place / "photos"))
    for _ in train(from_dict(TrainConfig, settings), place / "run", torch.device("cpu")):
        pass
    return place / "run" / "model.safetensors"


def training_of(photos):
    data = {"images": str(photos), "validation": str(photos), "crop": 16, "validation_images": 2}
    log = {"every": 1, "validate_every": 2, "save_every": 1, "sampling_steps": 1}
    return {"task": "photos_16_64", "model": "sr3", "data": data, "optimiser": OPTIMISER, "unet": UNET, "log": log}


def photographs(folder):
    generator = torch.Generator().manual_seed(0)
    for index in range(6):
        coarse = torch.rand(1, 3, 6, 6, generator=generator)
        save(folder / f"{index}.png", torch.nn.functional.interpolate(coarse, (64, 72), mode="bilinear")[0])
    return folder


@pytest.fixture
def photos(tmp_path):
    return photographs(tmp_path / "photos")


class Commands:
    """A small job of each command, on the same photographs, into the same folder."""

    def __init__(self, photos, checkpoint, place):
        self.photos, self.place, self.out = photos, place, place / "out"
        # A checkpoint of its own, since a search writes beside it.
        self.checkpoint = place / "sr3.safetensors"
        shutil.copy(checkpoint, self.checkpoint)
        self.configs = {
            "train": training_of(photos),
            "cascade": {"generator": {"checkpoint": GENERATOR, "steps": 2}, "images": 4, "batch_size": 2},
            "search": {
                "checkpoint": str(self.checkpoint),
                "budgets": [1, 2],
                "data": {"images": str(photos), "number": 4, "coarse": 2, "crop": 16},
                "space": {"solver": ["dpmpp_2m"], "first_beta": [1e-4], "jump": []},
                "rounds": 0,
            },
            "run": {
                "task": {"scale": 4},
                "metrics": ["psnr"],
                "data": {"images": str(photos)},
                "method": [{"kind": "bicubic"}],
            },
        }

    def __call__(self, name, out=None, **changes):
        out = str(out or self.out)
        if name == "sample":
            options = ["--checkpoint", str(self.checkpoint), "--steps", "2", "--batch-size", "3"]
            return CliRunner().invoke(cli.main, ["sample", *options, str(self.photos), out])
        path = self.place / f"{name}.toml"
        path.write_text(tomli_w.dumps(self.configs[name] | changes))
        if name == "run":
            return CliRunner().invoke(commands.main, ["run", str(path), "--out", out])
        command = "search-schedule" if name == "search" else name
        return CliRunner().invoke(cli.main, [command, str(path), "--out", out])

    def whole(self):
        """Every file that was written for good can be read as a whole."""
        for path in self.out.rglob("*"):
            assert not path.name.startswith(files.TEMPORARY), path
            if path.suffix == ".png":
                load(path)
            elif path.suffix == ".safetensors":
                with safetensors.safe_open(str(path), framework="pt") as opened:
                    assert opened.keys()
            elif path.suffix == ".json":
                json.loads(path.read_text())

    def pictures(self):
        return {str(path.relative_to(self.out)): path.read_bytes() for path in self.out.rglob("*.png")}


@pytest.fixture
def job(photos, checkpoint, tmp_path):
    return Commands(photos, checkpoint, tmp_path)


def one_line(result, *parts):
    """It failed, and says so in one line that holds these parts."""
    assert result.exit_code not in (0, 2), result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    for part in parts:
        assert part in lines[0], lines


@contextmanager
def largest_file(size):
    """RLIMIT_FSIZE, as a full disk is to those who write."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(("name", "size"), [("train", 20_000), ("sample", 9_000), ("cascade", 600), ("run", 6_000)])
def test_a_file_that_does_not_fit_is_one_line_and_the_job_resumes(name, size, job):
    with largest_file(size):
        one_line(job(name), "File too large; raise the limit on file sizes (ulimit -f); the same command resumes")
    job.whole()
    assert job(name).exit_code == 0
    broken = job.pictures()
    shutil.rmtree(job.out)
    assert job(name).exit_code == 0
    assert broken == job.pictures()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_cannot_be_written_is_one_line(name, code, job, monkeypatch):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    one_line(job(name), os.strerror(code), str(job.out))
    assert not job.pictures()


def test_every_remedy_is_told(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fdopen", refuse)
    with pytest.raises(OSError, match="No space left on device") as raised:
        atomic_write(tmp_path / "a.png", b"x")
    assert raised.value.filename == str(tmp_path / "a.png")
    assert REMEDIES[errno.ENOSPC] == "make room; the same command resumes"


@contextmanager
def at_first(module, attribute, event):
    """Let something happen before the first call of a function."""
    module = importlib.import_module(module)
    original, happened = getattr(module, attribute), []

    def wrapped(*args, **options):
        if not happened:
            happened.append(1)
            event()
        return original(*args, **options)

    setattr(module, attribute, wrapped)
    try:
        yield
    finally:
        setattr(module, attribute, original)
    assert happened


STEPS = {  # what each command calls again and again while it works
    "sample": ("sr3eval.diffusion.sample_folder", "save"),
    "cascade": ("sr3eval.diffusion.cascade_folder", "save"),
    "run": ("sr3eval.benchmark.make", "save"),
    "search": ("sr3eval.diffusion.search", "round_to_8bit"),
}


@pytest.mark.parametrize("name", STEPS)
def test_sigterm_ends_after_the_step_in_hand_and_the_job_resumes(name, job):
    with at_first(*STEPS[name], lambda: os.kill(os.getpid(), signal.SIGTERM)):
        stopped = job(name)
    assert stopped.exit_code == 128 + signal.SIGTERM
    assert stopped.stderr == "Stopped. The same command resumes from here.\n"
    job.whole()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert job(name).exit_code == 0


def test_a_loss_that_is_not_finite_is_one_line(job, monkeypatch):
    trainer = importlib.import_module("sr3eval.diffusion.train").Trainer
    losses = trainer._losses
    monkeypatch.setattr(trainer, "_losses", lambda self, *inputs: losses(self, *inputs) * float("nan"))
    one_line(job("train"), "step 1: the loss is nan", "lower optimiser.learning_rate")
    assert not (job.out / "model.safetensors").exists()


def out_of_memory_here(*_, **__):
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize(("name", "module"), [("sample", "sr3eval.diffusion.sr3"), ("run", "sr3eval.methods.bicubic")])
def test_memory_that_does_not_suffice_is_one_line(name, module, job, monkeypatch):
    monkeypatch.setattr(importlib.import_module(module), "bicubic_up", out_of_memory_here)
    one_line(job(name), "not enough memory", "lower batch_size")


def test_out_of_memory_is_told_from_other_errors():
    assert out_of_memory(MemoryError()) and out_of_memory(RuntimeError("CUDA out of memory"))
    assert not out_of_memory(RuntimeError("shapes differ")) and not out_of_memory(ValueError("out of memory"))


CHANGES = {
    "removed": lambda path: path.unlink(),
    "another size": lambda path: save(path, torch.rand(3, 80, 96)),
    "too small": lambda path: save(path, torch.rand(3, 8, 8)),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:200]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("name", "module", "attribute"),
    [("sample", "sr3eval.diffusion.sample_folder", "_write"), ("run", "sr3eval.benchmark.make", "prepare")],
)
def test_an_image_that_changes_between_plan_and_read_is_one_line(name, module, attribute, change, job):
    image = job.photos / "3.png"
    with at_first(module, attribute, lambda: CHANGES[change](image)):
        one_line(job(name), f"{image}: ")
    job.whole()


@pytest.mark.parametrize("change", ["removed", "truncated"])
def test_a_training_image_that_goes_is_one_line(change, job):
    with at_first("sr3eval.diffusion.train", "claim", lambda: CHANGES[change](job.photos / "3.png")):
        one_line(job("train"), f"{job.photos / '3.png'}: ")
    job.whole()


def test_a_damaged_cached_picture_is_made_again(job):
    assert job("run").exit_code == 0
    first = job.pictures()
    shutil.rmtree(job.out)
    entries = sorted((job.place / ".cache").rglob("*.png"))
    assert len(entries) == 6
    entries[0].write_bytes(entries[0].read_bytes()[:-20])
    entries[1].write_bytes(b"")
    entries[2].with_suffix(".json").write_bytes(b"{")
    middle = bytearray(entries[3].read_bytes())
    middle[len(middle) // 2] ^= 0xFF
    entries[3].write_bytes(middle)
    assert job("run").exit_code == 0
    assert job.pictures() == first


def test_a_file_system_without_locks_goes_on(job, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with held(job.out):
        pass
    for name in ("sample", "run"):
        assert job(name, job.out / name).exit_code == 0


@pytest.fixture
def other_clock(monkeypatch):
    """Ten years ago, at the other end of the world."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    now = files.time.time
    monkeypatch.setattr(files.time, "time", lambda: now() - 10 * 365 * 86_400)
    files.time.tzset()
    yield
    monkeypatch.undo()
    files.time.tzset()


@pytest.mark.parametrize("name", ["train", "run"])
def test_a_clock_set_back_changes_nothing(name, job, request):
    finished = {"train": {"optimiser": OPTIMISER | {"steps": 2}}, "run": {}}[name]
    assert job(name, **finished).exit_code == 0
    shutil.copytree(job.out, job.place / "copy")
    request.getfixturevalue("other_clock")
    assert job(name).exit_code == 0
    resumed = job.pictures()
    shutil.rmtree(job.out)
    assert job(name).exit_code == 0
    assert resumed == job.pictures()


ODD = (
    "with space",
    "-dash",
    "new\nline",
    "tab\t",
    "comma,semi;quote'\"",
    "=1+2",
    "a.b.c",
    "100%s{x}",
    "<b>&amp;",
    "日本語 ü",
    "İı",
    "x" * 250,
    "/".join(["d" * 100] * 3) + "/y",
)


def test_odd_names_are_kept(job, photos):
    source = (photos / "0.png").read_bytes()
    shutil.rmtree(photos)
    for name in ODD:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / f"{name}.png").write_bytes(source)
    for name in ("sample", "run", "train"):
        done = job(name, job.place / name)
        assert done.exit_code == 0, done.output
    for folder in ("sample", "run/images/bicubic", "run/images/_hr"):
        made = {str(p.relative_to(job.place / folder).with_suffix("")) for p in (job.place / folder).rglob("*.png")}
        assert made == set(ODD)
    again = job("run", job.place / "run")
    assert again.exit_code == 0, again.output
    from sr3eval.benchmark.scores import read_run

    assert set(read_run(job.place / "run").per_image["image_id"]) == set(ODD)


def test_composed_and_decomposed_letters_are_two_images(job, photos):
    source = (photos / "0.png").read_bytes()
    shutil.rmtree(photos)
    photos.mkdir()
    for form in ("NFC", "NFD"):
        (photos / f"{unicodedata.normalize(form, 'ü')}.png").write_bytes(source)
    if len(list(photos.iterdir())) == 1:  # a file system that normalises them
        return
    assert job("run").exit_code == 0
    assert len(job.pictures()) == 6


def test_names_that_leave_no_room_are_refused_before_work(job, photos):
    shutil.copy(photos / "0.png", photos / f"{'x' * 251}.png")
    one_line(job("run"), "a name of 251 bytes, xxxx", "shorten it")
    assert not job.out.exists()


@pytest.mark.parametrize("name", ["sample", "run"])
def test_an_output_folder_with_too_long_a_name_is_one_line(name, job):
    one_line(job(name, job.place / ("y" * 300)), "File name too long")


def test_one_pixel_and_more_than_can_be_read(job, photos):
    shutil.rmtree(photos)
    save(photos / "one.png", torch.rand(3, 1, 1))
    assert job("sample").exit_code == 0
    assert header_size(job.out / "one.png") == (4, 4)
    one_line(job("run", job.place / "run"), "no image has 4 pixels or more on its short side (1 image)")
    one_line(job("train", job.place / "train"), "no training image is left (1 are below 16 pixels)")
    Image.new("1", (20_000, 20_000)).save(photos / "large.png")
    for name in ("sample", "run", "train"):
        one_line(
            job(name, job.place / f"large {name}"), "large.png: has more than 179 million pixels; cut it into parts"
        )


def test_an_image_that_memory_does_not_hold_is_named(photos, monkeypatch):
    monkeypatch.setattr("sr3eval.images.from_uint8", out_of_memory_here)
    with pytest.raises(UserError, match=r"0.png: 72x64 pixels, for which memory does not suffice; cut it into parts"):
        load(photos / "0.png")
