"""The strict loader."""

from dataclasses import dataclass
from typing import Literal

import pytest

from sr3eval import config
from sr3eval.errors import UserError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    sizes: tuple[int, ...] = (1,)
    limit: int | None = None


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
    ],
)
def test_errors_name_the_key(data, message):
    with pytest.raises(UserError, match=message):
        config.from_dict(Outer, data)


def test_options_of_a_call_are_checked_like_keys():
    def build(*, steps: int, clip: bool = False) -> None: ...

    assert config.check_call(build, {"steps": 3}, "method") == {"steps": 3}
    with pytest.raises(UserError, match='unknown key "method.step": did you mean "steps"'):
        config.check_call(build, {"step": 3}, "method")
    with pytest.raises(UserError, match='missing key "method.steps"'):
        config.check_call(build, {}, "method")


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "c.toml").write_text('name = "é"\n', encoding="utf-8-sig")
    assert config.read_toml(tmp_path / "c.toml") == {"name": "é"}


def test_unreadable_toml(tmp_path):
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(UserError, match=r"bad\.toml: not a readable TOML"):
        config.read_toml(tmp_path / "bad.toml")
    with pytest.raises(UserError, match="no such file"):
        config.read_toml(tmp_path / "absent.toml")
