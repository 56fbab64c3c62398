"""Any metric of single images that the package pyiqa (IQA-PyTorch) has, by its name there: MUSIQ, MANIQA, CLIPIQA …"""

import contextlib
import functools
import importlib
import inspect
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from hashlib import file_digest
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from sr3eval.device import all_threads, default_device
from sr3eval.errors import UserError, nearest
from sr3eval.metrics import Batch, Convention, PerImage, available
from sr3eval.weights import FOLDER, Release, folders

INSTALL = 'pip install "sr3eval[pyiqa]"'
LICENCE = "pyiqa's is PolyForm-Noncommercial-1.0.0; see the authors'"
DIGITS = re.compile(r"-([0-9a-f]{8})\.pth$")  # of the sha256
# Files that pyiqa 0.1.16 downloads, of the metrics that papers on super-resolution report. Some load a backbone, too.
RELEASES = (
    *(
        Release(
            f"{metric} (pyiqa)", file, "github.com/chaofengc/IQA-PyTorch", LICENCE, sha256="".join(DIGITS.findall(file))
        )
        for metric, file in (
            ("NIQE", "niqe_modelparameters.mat"),
            ("BRISQUE", "brisque_svm_weights.pth"),
            ("MUSIQ", "musiq_koniq_ckpt-e95806b9.pth"),
            ("MANIQA", "ckpt_koniq10k.pt"),
            ("CLIPIQA+", "CLIP-IQA+_learned_prompts-603f3273.pth"),
            ("TOPIQ-NR", "cfanet_nr_koniq_res50-9a73138b.pth"),
            ("TOPIQ-FR", "cfanet_fr_kadid_res50-2c4cc61d.pth"),
            ("NIMA", "NIMA_InceptionV2_ava-b0c77c00.pth"),
            ("DBCNN", "DBCNN_KonIQ10k-2de81c0a.pth"),
            ("HyperIQA", "HyperIQA-resnet50-koniq10k-c96c41b1.pth"),
            ("CNNIQA", "CNNIQA_koniq10k-e6f14c91.pth"),
            ("PieAPP", "PieAPPv0.1-0937b014.pth"),
            ("LIQE", "liqe_koniq.pt"),
        )
    ),
    Release(
        "CLIPIQA (pyiqa): CLIP",
        "RN50.pt",
        "github.com/openai/CLIP",
        "MIT",
        sha256="afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    ),
)
SETS = {"FID": "fid", "InceptionScore": "inception_score"}  # by architecture, ours of whole sets
WEIGHTS = "pretrained_model_path"  # pyiqa's name for it
# What decides on the number whether or not it is set, and what pyiqa hides from its signatures.
SHOWN = ("test_y_channel", "color_space", "crop_border")
HIDDEN = {"PSNR": {"color_space": "yiq"}}
SEED = 123  # some metrics look at random crops


def build(*, metric: str, weights: str | None = None, **options: Any) -> PerImage:
    """A metric of pyiqa (non-commercial licence), such as `metric = "musiq"`; other options are pyiqa's own.

    Args:
        metric: its name in pyiqa.
        weights: a file in place of the one that pyiqa downloads. pyiqa unpickles its files: use its authors' only.
        **options: pyiqa's, such as crop_border and color_space; they are in the metric's id.
    """
    registry = _imported("pyiqa.default_model_configs").DEFAULT_CONFIGS
    if metric not in registry:
        raise UserError(f'pyiqa: unknown metric "{metric}": {nearest(metric, registry)}')
    declared = dict(registry[metric])
    given = dict(declared["metric_opts"])
    architecture = given.pop("type")
    if architecture in SETS:
        raise UserError(f'pyiqa: {metric} scores whole sets of images: use the metric "{SETS[architecture]}" instead')
    defaults = _defaults(architecture)
    _check(metric, defaults, options)
    chosen = {**{name: defaults[name] for name in SHOWN if name in defaults}, **given, **options}
    network = _network(metric, json.dumps({**options, **_replacement(metric, defaults, weights)}), *folders())
    convention = _convention(metric, declared, options, [*_form(architecture, chosen), *_digest(weights)])
    return PerImage(convention, lambda batch: _scores(network, batch, convention))


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"pyiqa cannot be used ({error}): {INSTALL}, and what else it needs") from None


def _defaults(architecture: str) -> dict[str, Any]:
    """The options of the class that computes a metric, with their defaults."""
    folder = Path(_imported("pyiqa.archs").__file__).parent
    declaration = re.compile(rf"^class {architecture}\(", re.MULTILINE)
    file = next(path for path in folder.glob("*_arch.py") if declaration.search(path.read_text(encoding="utf-8")))
    parameters = inspect.signature(getattr(_imported(f"pyiqa.archs.{file.stem}"), architecture)).parameters.values()
    named = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}
    return named | HIDDEN.get(architecture, {})


def _check(metric: str, defaults: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse options that the metric does not have, or whose type is not that of their default."""
    valid = defaults.keys() - {WEIGHTS}
    for name, value in options.items():
        if name not in valid:
            raise UserError(f'unknown key "pyiqa {metric}.{name}": {nearest(name, valid)}')
        kind = next((kind for kind in (bool, str, (int, float)) if isinstance(defaults[name], kind)), object)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind == (int, float)):
            raise UserError(f"pyiqa {metric}.{name}: {value!r} is not of the type of its default {defaults[name]!r}")


def _replacement(metric: str, defaults: Mapping[str, Any], weights: str | None) -> dict[str, str]:
    """pyiqa's option for a file of weights."""
    if weights is None:
        return {}
    if WEIGHTS not in defaults:
        raise UserError(
            f"pyiqa: {metric} takes no file of weights: put its files, under their published names, into the folder "
            f"that {FOLDER} names"
        )
    if not Path(weights).is_file():
        raise UserError(f"{weights}: no such file of weights")
    return {WEIGHTS: weights}


@functools.cache
def _network(metric: str, options: str, *_folders: Path) -> Callable[..., Any]:
    """pyiqa's module, on the GPU where there is one: one for all metrics of the same options (as JSON) and files."""
    create = _imported("pyiqa").create_metric
    with contextlib.redirect_stdout(io.StringIO()), _files_by_name(metric):
        try:
            return create(metric, device=default_device(), **json.loads(options))
        except UserError:
            raise
        except ImportError as error:
            raise UserError(f"pyiqa: {metric} cannot be used ({error}): {INSTALL}, and what else it needs") from None
        except Exception as error:  # of any of pyiqa's architectures, and of the libraries behind them
            raise UserError(f"pyiqa: {metric} cannot be built ({_line(error)})") from error


@contextlib.contextmanager
def _files_by_name(metric: str) -> Iterator[None]:
    """Inside, what pyiqa would download is taken from the folder of SR3EVAL_WEIGHTS, if it is there by its name."""

    def search(download: Callable[..., Any], use: Callable[[Path], Any], suffix: str) -> Callable[..., Any]:
        def found(url: str, *args: Any, **options: Any) -> Any:
            name = url.rsplit("/", 1)[-1] + suffix
            path = next((folder / name for folder in folders() if (folder / name).exists()), None)
            if path:
                return use(path)
            try:
                return download(url, *args, **options)
            except (OSError, RuntimeError) as error:
                raise UserError(
                    f"pyiqa: {metric} needs {url}, which cannot be downloaded ({_line(error)}): fetch it on another "
                    f"machine and set {FOLDER} to the folder that holds {name}"
                ) from None

        return found

    with contextlib.ExitStack() as restored:
        for module, name, use, suffix in _downloads():
            download = getattr(module, name)
            restored.callback(setattr, module, name, download)
            setattr(module, name, search(download, use, suffix))
        yield


def _downloads() -> Iterator[tuple[Any, str, Callable[[Path], Any], str]]:
    """Every function that downloads for pyiqa: (module, name, what it makes of the file, suffix of the file's name)."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("pyiqa", "clip")):
            yield from ((module, own, str, "") for own in ("load_file_from_url", "_download") if hasattr(module, own))
    yield importlib.import_module("torchvision.models._api"), "load_state_dict_from_url", _read, ""
    builder = importlib.import_module("timm.models._builder")
    yield builder, "load_state_dict_from_hf", safetensors.torch.load_file, ".safetensors"


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _convention(metric: str, declared: Mapping[str, Any], options: Mapping[str, Any], form: list[str]) -> Convention:
    about = metadata.metadata("pyiqa")
    extent = (declared.get("score_range") or "unknown").replace(", ", " to ")
    numbers = [float(number) for number in re.findall(r"[\d.]+", extent)]
    remarks = [*(["pyiqa"] if metric in available() else []), *(f"{key} {options[key]}" for key in sorted(options))]
    package = f"pyiqa {about['Version']}"
    licence = next((about[key] for key in ("License-Expression", "License") if key in about), "see its licence")
    return Convention(
        name="_".join(["pyiqa", metric, *(f"{key}_{options[key]}" for key in sorted(options))]),
        label=metric.upper() + (f" ({', '.join(remarks)})" if remarks else ""),
        higher_is_better=not declared.get("lower_better", False),
        settings=f"{package} ({licence}), {metric}: {', '.join(form)}, range {extent}, whole images, mean over images",
        unit="dB" if declared["metric_opts"]["type"] == "PSNR" else "",
        decimals=2 if max(numbers, default=0) >= 10 else 4,
        version=package,
        needs_hr=declared["metric_mode"] == "FR",
    )


def _form(architecture: str, chosen: Mapping[str, Any]) -> list[str]:
    """The architecture, its colours, and its options, in words."""
    colour = [] if chosen.get("test_y_channel") else ["RGB"]
    return [architecture, *colour, *(f"{name} {value}" for name, value in chosen.items())]


def _digest(weights: str | None) -> list[str]:
    if weights is None:
        return []
    with Path(weights).open("rb") as file:
        return [f"weights sha256 {file_digest(file, 'sha256').hexdigest()[:8]}"]


def _scores(network: Callable[..., Any], batch: Batch, convention: Convention) -> Tensor:
    """One score an image, [N] float64: images one by one, so that crops and padding do not depend on the batch."""
    pair = batch.pair if convention.needs_hr else (batch.sr,)
    images = zip(*(tensor.clamp(0, 1).to(default_device()).split(1) for tensor in pair), strict=True)
    return torch.tensor(
        [_score(network, image_id, inputs, convention) for image_id, inputs in zip(batch.ids, images, strict=True)],
        dtype=torch.float64,
    )


def _score(network: Callable[..., Any], image_id: str, inputs: tuple[Tensor, ...], convention: Convention) -> float:
    try:
        with _seeded(), all_threads():
            return float(network(*inputs))
    except Exception as error:  # each of pyiqa's architectures has its own for images that it cannot take
        height, width = inputs[0].shape[-2:]
        raise UserError(
            f"{image_id}: {convention.name} cannot score this {width}x{height} image ({_line(error)})"
        ) from error


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """The same random numbers for every image."""
    state = np.random.get_state()
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(SEED)
        np.random.seed(SEED)
        try:
            yield
        finally:
            np.random.set_state(state)


def _line(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
