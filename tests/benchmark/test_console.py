"""What a run says while it works, where nobody sees a bar."""

import re
import time

import pytest

from sr3eval import console

LINE = r"work: (\d+) of 40, 00:\d\d elapsed, about 00:\d\d left"


def told(capsys):
    return capsys.readouterr().err.strip().splitlines()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(console, "EVERY", 0.2)
    monkeypatch.setattr(console.Lines, "ended", float("-inf"))


def test_without_a_terminal_there_is_a_line_now_and_then(capsys):
    begun = time.monotonic()
    with console.progress("work", 40) as bar:
        for _ in range(10):
            time.sleep(0.07)
            bar.update(1)
    lines = told(capsys)
    assert 2 <= len(lines) <= (time.monotonic() - begun) / 0.2
    for line in lines:
        assert re.fullmatch(LINE, line), line


def test_a_line_comes_during_a_long_step_too(capsys):
    with console.progress("work") as bar:
        time.sleep(0.5)
        bar.total = 40
    assert re.fullmatch(r"work: 0 of \?, 00:0\d elapsed, time left unknown", told(capsys)[0])


def test_short_stages_share_the_clock(capsys):
    begun = time.monotonic()
    for _ in range(8):
        with console.progress("work", 40) as bar:
            time.sleep(0.08)
            bar.update(4)
    assert 2 <= len(told(capsys)) <= (time.monotonic() - begun) / 0.2


def test_short_work_says_nothing(capsys):
    with console.progress("work", 1) as bar:
        bar.set_postfix({"loss": "0.1"})
        bar.update(1)
    assert told(capsys) == []


def test_time_left_is_by_the_pace_of_now(capsys):
    """What was found done at the beginning took no time, and is no pace: about 80 are left at 16 a second or fewer."""
    with console.progress("work", 1100) as bar:
        bar.update(1000)
        for _ in range(25):
            time.sleep(0.03)
            bar.update(0.5)
    minutes, seconds = re.search(r"about (\d\d):(\d\d) left$", told(capsys)[-1]).groups()
    assert 60 * int(minutes) + int(seconds) >= 4
