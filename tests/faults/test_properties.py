"""Whatever a config or an image file holds: a right result, or one clear line that names it."""

import functools
import io
import tempfile
import tomllib
import warnings
from pathlib import Path

import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from sr3eval import config, images
from sr3eval.benchmark import RunConfig
from sr3eval.diffusion.cascade_folder import CascadeConfig
from sr3eval.diffusion.search_config import SearchConfig
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
BUILDERS = {
    "training": functools.partial(config.from_dict, TrainConfig),
    "search": functools.partial(config.from_dict, SearchConfig),
    "cascade": functools.partial(config.from_dict, CascadeConfig),
    "run": RunConfig.parse,
}
OTHERS = ("index.toml", "table_1.toml")  # of `benchmark.py paper` and `networks`
FILES = sorted(path for path in CONFIGS.rglob("*.toml") if path.name not in OTHERS)
EXAMPLES = {  # by the kind of config, all that come with the project
    kind: [t for path in FILES if config.kind_of(t := tomllib.loads(path.read_text())) == kind] for kind in BUILDERS
}
PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.datetimes(),
    st.times(),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refusal(function, *arguments):
    """What the function returns, or the one line that it refuses with."""
    try:
        return function(*arguments)
    except UserError as error:
        line = str(error)
    assert line.strip()
    assert len(line.splitlines()) == 1, line
    return UserError(line)


def places(value, at=()):
    """The paths to all values in tables and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*at, key)
        yield from places(inner, (*at, key))


def replaced(table, place, value):
    """A copy with another value, or without one where that is None."""
    copy = tomllib.loads(tomli_w.dumps(table))
    *parents, last = place
    inside = copy
    for key in parents:
        inside = inside[key]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    return copy


def plain(built):
    """The TOML that a config is kept as; texts, as NaN is not equal to itself."""
    return tomli_w.dumps(built.plain()) if isinstance(built, RunConfig) else config.to_toml(built)


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_config_that_comes_with_the_project_round_trips(kind):
    assert EXAMPLES[kind]
    for table in EXAMPLES[kind]:
        built = BUILDERS[kind](table)
        assert BUILDERS[kind](tomllib.loads(plain(built))) == built


@pytest.mark.parametrize("kind", BUILDERS)
@quick
@given(drawn=st.data())
def test_a_wrong_value_anywhere_is_taken_or_refused_in_one_line(kind, drawn):
    table = drawn.draw(st.sampled_from(EXAMPLES[kind]))
    place = drawn.draw(st.sampled_from(list(places(table))))
    changed = replaced(table, place, drawn.draw(st.none() | VALUES))
    built = refusal(BUILDERS[kind], changed)
    if not isinstance(built, UserError):
        kept = tomllib.loads(plain(built))
        assert repr(tomllib.loads(plain(BUILDERS[kind](kept)))) == repr(kept)


@quick
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_config_or_one_line(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_bytes(content)
        table = refusal(config.read_toml, path)
        assert isinstance(table, dict) or str(path) in str(table)
        if isinstance(table, dict):
            assert refusal(config.kind_of, table)


@quick
@given(override=st.text(max_size=30) | st.from_regex(r"[a-z.0-9]{1,12}=[^\n]{0,12}", fullmatch=True))
@example("method.0.name=x")
@example("method.9.name=x")
@example("method.-1.name=x")
@example("method.²=x")
@example("=")
def test_any_override_is_applied_or_one_line(override):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(
            tomli_w.dumps({"task": "x", "method": [{"kind": "bicubic"}, {"kind": "sr3"}], "log": {"every": 1}})
        )
        table = refusal(config.read_toml, path, (override,))
        assert isinstance(table, dict) or str(UserError(override)) in str(table)


def written(name, **options):
    """A small photograph as a file of some format."""
    file = io.BytesIO()
    Image.fromarray(data.astronaut()[200:232, 200:240]).save(file, name, **options)
    return file.getvalue()


FILES = {
    "png": written("PNG"),
    "jpg": written("JPEG"),
    "webp": written("WEBP"),
    "tif": written("TIFF", compression="tiff_lzw"),
    "bmp": written("BMP"),
    "gif": written("GIF"),
    "ppm": written("PPM"),
    "tga": written("TGA"),
}


def damaged(content, drawn):
    """A file of which some bytes are others, or which ends early, or has more."""
    changed = bytearray(content)
    for _ in range(drawn.draw(st.integers(0, 4))):
        near = st.integers(0, min(64, len(changed) - 1))  # headers
        changed[drawn.draw(near | st.integers(0, len(changed) - 1))] = drawn.draw(st.integers(0, 255))
    end = drawn.draw(st.none() | st.integers(0, len(changed)))
    return bytes(changed[:end]) + drawn.draw(st.just(b"") | st.binary(max_size=20))


@pytest.mark.parametrize("suffix", FILES)
@quick
@given(drawn=st.data())
def test_any_bytes_are_an_image_or_one_line_that_names_the_file(suffix, drawn):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="error"):
        path = Path(folder) / f"image.{suffix}"
        path.write_bytes(damaged(FILES[suffix], drawn))
        size, image = refusal(images.header_size, path), refusal(images.load, path)
        for found in (size, image):
            assert not isinstance(found, UserError) or str(path) in str(found)
        if isinstance(image, torch.Tensor):
            assert image.shape == (3, *size)
            assert image.dtype == torch.float32
            assert 0 <= image.min() <= image.max() <= 1


@pytest.mark.parametrize("suffix", FILES)
def test_a_whole_file_is_an_image(suffix, tmp_path):
    (tmp_path / f"image.{suffix}").write_bytes(FILES[suffix])
    assert images.load(tmp_path / f"image.{suffix}").shape == (3, 32, 40)


def test_what_cannot_be_printed_is_escaped():
    assert str(UserError("a\tb\nc\x1b[31m é日")) == "a\\tb\\nc\\x1b[31m é日"
    assert str(UserError("first", "second\n")) == "first\nsecond\\n"
