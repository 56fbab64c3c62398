"""Somebody's own method: whatever its pictures depend on names them, and its mistakes are one line."""

import textwrap
from importlib.metadata import version

import pytest
import torch
from click.testing import CliRunner

from benchmark import main
from sr3eval import sources
from sr3eval.benchmark import run
from sr3eval.benchmark.cache import identity
from sr3eval.benchmark.config import MethodConfig, RunConfig
from sr3eval.benchmark.plan import build
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.errors import UserError
from sr3eval.images import save
from sr3eval.methods.bicubic import Bicubic
from sr3eval.sources import code_behind, code_of, named_in
from sr3eval.tasks import TASKS

TASK = TASKS["photos_16_64"]
# The README's own method, its fingerprint named by the weights' path: SR is the enlarged LR plus a bias.
MODEL = """
import torch
class Mine:
    name, scale = "mine", 4
    def __init__(self, weights):
        self.bias = torch.load(weights)["bias"]
        self.fingerprint = "mine v1 " + weights
    def upscale(self, lr, seeds):
        return (lr.repeat_interleave(4, -1).repeat_interleave(4, -2) + self.bias).clamp(0, 1)
def build(*, weights: str): return Mine(weights)
"""


@pytest.fixture
def world(tmp_path, one_thread):
    """images/ of one grey each, so that a bias is all of the error."""
    for index in range(4):
        save(tmp_path / "images" / f"{index}.png", torch.full((3, 64, 64), (80 + 20 * index) / 255))
    return tmp_path


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def config(world, *method, **options):
    settings = {"task": TASK.name, "batch_size": 2, "metrics": ["psnr"], "data": {"images": str(world / "images")}}
    return settings | {"method": list(method) or [{"python": f"{world / 'my_model.py'}:build", **options}]}


def psnr(world, out, *method, **options):
    """Run into the folder `out`; the mean PSNR."""
    results = run(RunConfig.parse(config(world, *method, **options)), world / out, world / "cache")
    return results["value"].item()


def test_what_reads_configs_is_no_part_of_a_method():
    """Nor are the other packages that sr3eval is built on: their releases make no other pictures."""
    code = code_behind(TrainConfig)
    assert code is not None and "sr3eval/config.py" in code.files and not code.packages


def of_bias(levels):
    return -20 * torch.tensor(levels / 255, dtype=torch.float64).log10().item()


def test_weights_retrained_into_the_same_file_are_scored_anew(world):
    write(world, my_model=MODEL)
    torch.save({"bias": 51 / 255}, world / "m.pt")
    assert psnr(world, "first", weights=str(world / "m.pt")) == pytest.approx(of_bias(51), abs=1e-4)
    torch.save({"bias": 17 / 255}, world / "m.pt")
    assert psnr(world, "second", weights=str(world / "m.pt")) == pytest.approx(of_bias(17), abs=1e-4)


def test_weights_replaced_under_a_run_are_refused_by_name(world):
    write(world, my_model=MODEL)
    torch.save({"bias": 51 / 255}, world / "m.pt")
    before = psnr(world, "run", weights=str(world / "m.pt"))
    kept = {path: path.read_bytes() for path in (world / "run").rglob("*") if path.is_file()}
    torch.save({"bias": 17 / 255}, world / "m.pt")
    with pytest.raises(UserError, match=r'method "python" has changed since this run began \(weights \(m\.pt\)\)'):
        psnr(world, "run", weights=str(world / "m.pt"))
    assert kept == {path: path.read_bytes() for path in (world / "run").rglob("*") if path.is_file()}
    torch.save({"bias": 51 / 255}, world / "m.pt")
    assert psnr(world, "run", weights=str(world / "m.pt")) == before


# Each edits one file that the method is made of, and nothing else: LEVELS is the bias that it adds.
HELPER = "LEVELS = {levels}"
PLAIN = """
class Mine:
    name, scale = "mine", 4
    def upscale(self, lr, seeds):
        {inside}
        return (lr.repeat_interleave(4, -1).repeat_interleave(4, -2) + LEVELS / 255).clamp(0, 1)
def build(): return Mine()
"""
PARTS = {
    "its own file": ("LEVELS = {levels}" + PLAIN, "pass", "my_model", None),
    "a module beside it": ("from helper import LEVELS" + PLAIN, "pass", "helper", HELPER),
    "one of a package, imported late": (PLAIN, "from net.parts import LEVELS", "net/parts", HELPER),
    "by importlib": (
        "import importlib" + PLAIN,
        'LEVELS = importlib.import_module("net.parts").LEVELS',
        "net/parts",
        HELPER,
    ),
    "of a star": ("from helper import *" + PLAIN, "pass", "helper", HELPER),
}


@pytest.mark.parametrize("case", PARTS)
def test_an_edit_of_what_it_is_made_of_is_scored_anew(world, case):
    text, inside, edited, content = PARTS[case]
    for out, levels in (("first", 102), ("second", 51)):
        write(world, my_model=text.replace("{inside}", inside).replace("{levels}", str(levels)))
        if content:
            write(world, **{edited: content.format(levels=levels)})
        assert psnr(world, out) == pytest.approx(of_bias(levels), abs=1e-4)


def test_a_file_that_its_code_names_is_part_of_it(world):
    text = MODEL.replace("torch.load(weights)", "torch.load(Path(__file__).parent / 'own.pt')").replace(
        "weights: str", ""
    )
    write(world, my_model="from pathlib import Path" + text.replace("*, ", "").replace("Mine(weights)", "Mine('-')"))
    for out, levels in (("first", 102), ("second", 51)):
        torch.save({"bias": levels / 255}, world / "own.pt")
        assert psnr(world, out) == pytest.approx(of_bias(levels), abs=1e-4)


def test_imports_are_followed_and_installed_packages_count_by_version(tmp_path, monkeypatch):
    tree = {
        "model": "import net.blocks, numpy, json\nfrom net import heads as h\ndef f():\n    import late, spandrel",
        "net/__init__": "",
        "net/blocks": "from . import heads\nfrom .deep.inner import x\nfrom ..above import y",
        "net/heads": "",
        "net/deep/inner": "import net.blocks",
        "late": "",
        "above": "",
        "unused": "",
    }
    write(tmp_path, **tree)
    code = code_of(tmp_path / "model.py", tmp_path)
    expected = "model.py net/__init__.py net/blocks.py net/heads.py net/deep/inner.py late.py above.py"
    assert sorted(code.files) == sorted(expected.split())
    assert code.packages == {"spandrel"}
    assert code.digest.endswith(f"spandrel {version('spandrel')}")
    before = code.digest
    monkeypatch.setattr(sources, "version", lambda name: "99")
    assert code.digest != before


def test_what_only_type_checkers_import_does_not_count(tmp_path):
    """Nor does a change of the benchmark make outputs anew, whose package `sr3eval` names it for editors."""
    guarded = "if TYPE_CHECKING:\n    import seen\nelse:\n    import taken"
    write(tmp_path, model=f"import typing\n{guarded}\n{guarded.replace('TYPE', 'typing.TYPE')}", seen="", taken="")
    assert sorted(code_of(tmp_path / "model.py", tmp_path).files) == ["model.py", "taken.py"]
    files = code_behind(Bicubic).files
    assert "sr3eval/__init__.py" in files and not any(name.startswith("sr3eval/benchmark") for name in files)


def test_options_name_files_and_folders_however_deep(tmp_path):
    (tmp_path / "a.pt").write_text("a")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "b.pt").write_text("b")
    given = {
        "x": str(tmp_path / "a.pt"),
        "y": {"z": [1, str(tmp_path / "folder")]},
        "text": "no file",
        "long": "x" * 5000,
    }
    assert list(named_in(given)) == ["x (a.pt)", "y.z.1 (folder)"]
    before = sources.digest(tmp_path / "folder")
    (tmp_path / "folder" / "inner" / "b.pt").write_text("c")
    assert sources.digest(tmp_path / "folder") != before


def test_built_in_methods_and_baselines_are_named_by_their_code_too():
    from baselines.esrgan import build

    code = code_behind(build)
    assert {"baselines/esrgan.py", "baselines/_pixels.py", "sr3eval/images.py"} <= set(code.files)
    assert "sr3eval/method.py" in code_behind(Bicubic).files


def test_a_gpu_s_pictures_are_not_the_cpu_s():
    on_cpu, on_gpu = Bicubic(4), Bicubic(4)
    on_gpu.device = torch.device("cuda")
    assert identity(on_cpu) != identity(on_gpu)


def test_options_alone_tell_methods_without_a_fingerprint_apart(world):
    write(world, my_model=PLAIN.format(inside="LEVELS = self.levels").replace("build():", "build(*, levels: int = 51):")
          .replace("return Mine()", "m = Mine(); m.levels = levels; return m"))  # fmt: skip
    assert psnr(world, "first") == pytest.approx(of_bias(51), abs=1e-4)
    assert psnr(world, "second", levels=17) == pytest.approx(of_bias(17), abs=1e-4)


def test_methods_with_modules_of_one_name_are_refused(world):
    """The second would have run with the first one's network."""
    for name in "ab":
        write(world / name, my_model="from helper import LEVELS" + PLAIN.format(inside="pass"), helper="LEVELS = 1")
    both = [{"name": name, "python": f"{world / name / 'my_model.py'}:build"} for name in "ab"]
    with pytest.raises(UserError, match=r'"import helper" finds .*/b/helper.py, not .*/a/helper.py: rename it'):
        psnr(world, "run", *both)


NETWORK = """
import torch
class Mine:
    name, scale = "mine", 4
    {attribute}
    def __init__(self):
        torch.manual_seed(0)
        self.network = torch.nn.Sequential({layers})
    def upscale(self, lr, seeds):
        return self.network(lr.repeat_interleave(4, -1).repeat_interleave(4, -2)).clamp(0, 1)
def build(): return Mine()
"""


@pytest.mark.parametrize("layers", ["torch.nn.Dropout(0.1)", "torch.nn.BatchNorm2d(3), torch.nn.Sigmoid()"])
def test_a_forgotten_eval_is_refused(world, layers):
    write(world, my_model=NETWORK.format(layers=layers, attribute="pass"))
    with pytest.raises(UserError, match=r"made twice, an image differs by up to \d+ of 255 levels: call \.eval\(\)"):
        psnr(world, "run")
    assert psnr(world, "option", deterministic=False) > 0
    write(world, my_model=NETWORK.format(layers=layers, attribute="deterministic = False"))
    assert psnr(world, "attribute") > 0


def test_the_check_costs_one_batch(world):
    counting = "self.calls = getattr(self, 'calls', 0) + 1; LEVELS = 51; open(__file__ + '.log', 'a').write('x')"
    write(world, my_model=PLAIN.format(inside=counting))
    psnr(world, "run")  # 4 images in batches of 2
    assert (world / "my_model.py.log").read_text() == "xxx"


FAULTS = {
    "build": (
        "def build():\n    raise ValueError('no such\\n layer: conv_9')",
        "line 2",
        "ValueError: no such layer: conv_9",
    ),
    "import": ("import torchh\ndef build(): pass", "line 1 (import torchh)", "No module named 'torchh'"),
    "syntax": ("def build(:\n", "line 1", "SyntaxError"),
    "upscale": (PLAIN.format(inside="LEVELS = lr.foo"), "line 5 (LEVELS = lr.foo)", "has no attribute 'foo'"),
    "numpy": (
        PLAIN.format(inside="LEVELS = 0").replace("clamp(0, 1)", "clamp(0, 1).numpy()"),
        'method "python", batch of 0',
        "gave a numpy array, not a tensor",
    ),
    "list": (PLAIN.format(inside="return [1]"), "batch of 0", "gave list, not a tensor"),
    "no upscale": ("def build(): return 3", "build() returns", "needs name, scale and upscale(lr, seeds)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_mistakes_are_one_line(world, fault):
    text, where, what = FAULTS[fault]
    write(world, my_model=text)
    settings = world / "config.toml"
    settings.write_text(
        f'task = "photos_16_64"\nmetrics = ["psnr"]\n[data]\nimages = "{world / "images"}"\n[[method]]\n'
    )
    settings.write_text(settings.read_text() + f'python = "{world / "my_model.py"}:build"\n', encoding="utf-8-sig")
    result = CliRunner().invoke(main, ["run", str(settings), "--out", str(world / "run")])
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert where in line and what in line


def test_a_changed_version_of_sr3eval_makes_everything_anew(monkeypatch):
    before = identity(Bicubic(4))
    monkeypatch.setattr("sr3eval.__version__", "99")
    assert identity(Bicubic(4)) != before


def test_scale_of_a_method_that_has_none_is_named():
    with pytest.raises(UserError, match=r'bicubic has no option "scale"; the scale is the task\'s, 4 of photos_16_64'):
        build(MethodConfig("bicubic", "bicubic", {"scale": 4}), TASK)
    with pytest.raises(UserError, match=r'unknown key "method "bicubic".steps": valid: kernel'):
        build(MethodConfig("bicubic", "bicubic", {"steps": 4}), TASK)


def test_a_method_that_failed_before_its_first_picture_may_be_mended(world):
    write(world, my_model=MODEL.replace("return (", "return undefined + ("))
    torch.save({"bias": 51 / 255}, world / "m.pt")
    with pytest.raises(UserError, match="NameError"):
        psnr(world, "run", weights=str(world / "m.pt"))
    write(world, my_model=MODEL)
    assert psnr(world, "run", weights=str(world / "m.pt")) == pytest.approx(of_bias(51), abs=1e-4)
    write(world, my_model=MODEL + "# edited")
    with pytest.raises(UserError, match=r"has changed since this run began \(my_model.py\)"):
        psnr(world, "run", weights=str(world / "m.pt"))
