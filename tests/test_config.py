"""The strict loader."""

import datetime
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from sr3eval import config
from sr3eval.errors import UserError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise UserError(f"inner.rate: {self.rate} is negative")


@dataclass(frozen=True)
class Pair:
    first: int
    second: int


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    sizes: tuple[int, ...] = (1,)
    limit: int | None = None
    whole: bool | Literal["blocks", "norms"] = False
    metrics: tuple[str | dict[str, Any], ...] = ()
    steps: tuple[Inner, ...] = ()
    task: str | Inner = "x"
    titles: dict[str, str] | None = None
    pair: Pair | None = None


def test_reads_nested_tables_and_round_trips(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('name = "x"\nsizes = [1, 2]\n[inner]\nrate = 1\n')
    built = config.from_dict(Outer, config.read_toml(path, ["inner.kind=b", "limit=3"]))
    assert built == Outer("x", Inner(1.0, "b"), (1, 2), 3)
    path.write_text(config.to_toml(built))
    assert config.from_dict(Outer, config.read_toml(path)) == built


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "x", "siezs": [1]}, 'unknown key "siezs": did you mean "sizes"'),
        ({"name": "x", "inner": {"rat": 1}}, 'unknown key "inner.rat": did you mean "rate"'),
        ({}, 'missing key "name"'),
        ({"name": 3}, '"name" must be a string, not 3'),
        ({"name": "x", "limit": True}, '"limit" must be a whole number, not True'),
        ({"name": "x", "sizes": ["1"]}, r'"sizes\[0\]" must be a whole number'),
        ({"name": "x", "sizes": 16}, '"sizes" must be a list, not 16'),
        ({"name": "x", "inner": {"kind": "c"}}, "\"inner.kind\" is 'c'"),
        ({"name": "x", "inner": 1}, '"inner" must be a table'),
        ({"naem": "x"}, 'unknown key "naem": did you mean "name"'),  # rather than that name is missing
        ({"name": "x", "zzzz": 1}, 'unknown key "zzzz": valid: inner, limit, metrics, name, pair, sizes, steps,'),
        ({"name": "x", "inner": {"q": 1}, "siezs": 1}, 'unknown key "siezs"'),  # the outermost one
        ({"name": "x", "pair": {"first": 1}}, 'missing key "pair.second"'),
        ({"name": None}, '"name" must be a string, not None'),
        ({"name": "x", "limit": 3.0}, '"limit" must be a whole number, not 3.0'),
        ({"name": "x", "inner": {"rate": True}}, '"inner.rate" must be a number, not True'),
        ({"name": "x", "inner": {"rate": -1}}, "^inner.rate: -1.0 is negative$"),
        ({"name": "x", "inner": None}, '"inner" must be a table, not None'),
        ({"name": "x", "steps": [{}, {"rate": "x"}]}, r""""steps\[1\].rate" must be a number, not 'x'"""),
        ({"name": "x", "steps": [{}, {"rat": 1}]}, r'unknown key "steps\[1\].rat": did you mean "rate"'),
        ({"name": "x", "whole": "block"}, '"whole" is \'block\': did you mean "blocks"'),
        ({"name": "x", "whole": 1}, '"whole" is 1: valid: blocks, norms'),
        ({"name": "x", "metrics": ["a", 3]}, r'"metrics\[1\]" must be a string or a table, not 3'),
        ({"name": "x", "task": 3}, '"task" must be a string or a table, not 3'),
        ({"name": "x", "task": {"kin": "a"}}, 'unknown key "task.kin": did you mean "kind"'),
        ({"name": "x", "task": {"rate": "a"}}, '"task.rate" must be a number'),
        ({"name": "x", "titles": {"a": 1}}, '"titles.a" must be a string, not 1'),
        ({"name": functools.reduce(lambda inner, _: [inner], range(250), 0)}, "recursion limit"),
        ({"name": "\ud800"}, '"config" holds what TOML cannot'),
        ({"name": "x", "limit": np.int64(3)}, '"config" holds what TOML cannot: .*numpy.int64'),
    ],
)
def test_errors_name_the_key(data, message):
    with pytest.raises(UserError, match=message):
        config.from_dict(Outer, data)


def test_numbers_come_through_exactly():
    for rate in (0.1 + 0.2, 5e-324, 2**53 + 1, math.inf):
        assert config.from_dict(Inner, {"rate": rate}).rate == float(rate)
    assert math.isnan(config.from_dict(Inner, {"rate": math.nan}).rate)
    assert config.from_dict(Outer, {"name": "x", "limit": 10**30}).limit == 10**30


def test_options_of_a_call_are_checked_like_keys():
    def build(*, steps: int, clip: bool = False) -> None: ...

    assert config.check_call(build, {"steps": 3}, "method") == {"steps": 3}
    with pytest.raises(UserError, match='unknown key "method.step": did you mean "steps"'):
        config.check_call(build, {"step": 3}, "method")
    with pytest.raises(UserError, match='missing key "method.steps"'):
        config.check_call(build, {}, "method")


def test_a_spread_dataclass_stands_among_the_options():
    def build(*, steps: int, inner: Annotated[Inner, config.SPREAD]) -> None: ...

    assert config.defaults(build) == {"rate": 0.5, "kind": "a"}
    assert config.check_call(build, {"steps": 3, "rate": 1}, "x") == {"steps": 3, "inner": Inner(1.0)}
    assert config.check_call(build, {"steps": 3}, "x") == {"steps": 3, "inner": Inner()}
    with pytest.raises(UserError, match='unknown key "x.inner": valid: kind, rate, steps'):
        config.check_call(build, {"steps": 3, "inner": {}}, "x")
    with pytest.raises(UserError, match='"x.rate" must be a number'):
        config.check_call(build, {"steps": 3, "rate": "1"}, "x")


def test_a_call_may_take_any_options_and_have_some_already():
    def build(own, *, python: str, folder: Path = Path(), **options) -> None: ...

    given = functools.partial(build, own=object())
    options = {"python": "a.py:b", "folder": "c", "day": datetime.date(2024, 1, 2)}
    assert config.check_call(given, options, "method") == options | {"folder": Path("c")}
    with pytest.raises(UserError, match='"method.python" must be a string, not 3'):
        config.check_call(given, {"python": 3}, "method")
    with pytest.raises(UserError, match='missing key "method.python"'):
        config.check_call(given, {}, "method")


def test_types_that_toml_does_not_have():
    def build(*, array: np.ndarray, either: str | np.ndarray = "") -> None: ...

    with pytest.raises(UserError, match='"method.array" must be a Python object, which TOML cannot hold, not 3'):
        config.check_call(build, {"array": 3}, "method")
    with pytest.raises(UserError, match='"method.either" must be a string or a Python object'):
        config.check_call(build, {"either": 3}, "method")
    assert config.check_call(functools.partial(build, array=None), {"either": "x"}, "method") == {"either": "x"}


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "c.toml").write_text('name = "é"\n', encoding="utf-8-sig")
    assert config.read_toml(tmp_path / "c.toml") == {"name": "é"}


def test_unreadable_toml(tmp_path):
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(UserError, match=r"bad\.toml: not a readable TOML"):
        config.read_toml(tmp_path / "bad.toml")
    with pytest.raises(UserError, match="no such file"):
        config.read_toml(tmp_path / "absent.toml")


def test_overrides_reach_into_lists_of_tables(tmp_path):
    (tmp_path / "c.toml").write_text('[[data]]\nname = "a"\n[[data]]\nname = "b"\n[[method]]\nkind = "x"\n')
    read = config.read_toml(tmp_path / "c.toml", ["data.1.limit=5", "method.steps=3"])
    assert read == {"data": [{"name": "a"}, {"name": "b", "limit": 5}], "method": [{"kind": "x", "steps": 3}]}
    with pytest.raises(UserError, match=r'--set data\.limit=1: "data" is a list; name one, e\.g\. "data\.0\.limit"'):
        config.read_toml(tmp_path / "c.toml", ["data.limit=1"])
    with pytest.raises(UserError, match=r'--set data\.2\.limit=1: "2" is not a table'):
        config.read_toml(tmp_path / "c.toml", ["data.2.limit=1"])
