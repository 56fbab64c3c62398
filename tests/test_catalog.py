"""Images by id in arrays: what a dictionary has, in memory that forked processes share."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sr3eval.catalog import of_members, of_paths
from sr3eval.errors import UserError
from sr3eval.shards import Member

ROOT = Path(__file__).parent.parent
NAMES = ["b/ü.png", "a.jpg", "日本/x.y.png", "b.webp", "😀.png", "￿.png"]  # UTF-16 would put the face before the last
PATHS = {name.rpartition(".")[0]: Path("/set", name) for name in NAMES}
MEMBERS = {
    "c": Member(Path("1.tar"), "c.png", 512, 9, "cat", (3, 4), "1a"),
    "a": Member(Path("0.tar"), "x/a.jpg", 1024, 7, "dog", (1, 2), "0a"),
    "b": Member(Path("0.tar"), "b.png", 2048, 2**40),
}


@pytest.mark.parametrize(
    ("made", "expected"),
    [(of_paths(Path("/set"), PATHS.items()), PATHS), (of_members(Path("set"), MEMBERS.items()), MEMBERS)],
)
def test_a_catalog_is_a_sorted_dictionary(made, expected):
    assert list(made) == list(made.ids) == sorted(expected) and len(made) == len(expected)
    assert made == expected and list(made.items()) == sorted(expected.items())
    assert list(made.values()) == [file for _, file in sorted(expected.items())]
    assert "" not in made and "z" not in made and made.get("bb") is None
    kept = np.arange(len(made)) % 2 == 0
    assert list(made.take(kept).items()) == list(made.items())[::2]
    assert list(made.take(~kept).ids[1:]) == list(made)[1::2][1:]


def test_an_empty_catalog_is_false():
    assert not of_paths(Path("/set"), []) and not of_members(Path("/set"), [])


def test_two_files_of_one_id_are_refused():
    pairs = [("b", Path("/set/b.png")), ("a", Path("/set/a.png")), ("b", Path("/set/b.jpg"))]
    with pytest.raises(UserError, match=r'/set: two images share the id "b" \(b.png, b.jpg\)'):
        of_paths(Path("/set"), pairs)


FORK = """
import gc, os, re, sys
from itertools import islice
from pathlib import Path
from sr3eval.catalog import of_members
from sr3eval.shards import Member

def private():
    return int(re.search("Private_Dirty: *([0-9]+)", Path("/proc/self/smaps_rollup").read_text())[1]) >> 10

shards = [Path(f"{n:06}.tar") for n in range(100)]
members = (Member(shards[i // 1000], f"n/{i:08}.png", i, i, str(i % 1000), (9, 9), "x") for i in range(100_000))
made = of_members(Path("set"), ((member.path, member) for member in members))
if "dict" in sys.argv:
    made = dict(made)
if (child := os.fork()) == 0:
    gc.disable()
    files = iter(made.values())
    first = sum(member.length for member in islice(files, 10_000))
    before = private()
    assert first + sum(member.length for member in files) == 4_999_950_000
    print(private() - before, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_forked_process_copies_nothing_by_reading():
    """MB of its own after reading 90,000 members: of a dictionary a dozen, here hardly any."""
    taken = [
        int(subprocess.run([sys.executable, "-c", FORK, kind], cwd=ROOT, capture_output=True, check=True).stdout)
        for kind in ("dict", "catalog")
    ]
    assert taken[0] > 3 * taken[1], taken
