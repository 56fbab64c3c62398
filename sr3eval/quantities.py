"""How quantities are written for people: bytes, counts of operations, durations."""

import math
from datetime import timedelta

PREFIXES = ("", "k", "M", "G", "T", "P", "E")
DAY = 86_400.0  # seconds


def quantity(value: float, unit: str) -> str:
    """Three digits with a decimal prefix: 633_867_267 "parameters" is "634 M parameters", 2.5e9 "B" is "2.5 GB"."""
    size = float(f"{value:.3g}")
    power = min(int(math.log10(size) // 3), len(PREFIXES) - 1) if size >= 1 else 0
    joint = "" if len(unit) < 5 else " "  # "GB", but "G parameters"
    number = f"{size / 1000**power:.3g}" if size < 1000 ** (power + 1) else f"{size / 1000**power:,.0f}"
    return f"{number} {PREFIXES[power]}{joint if PREFIXES[power] else ''}{unit}"


def duration(seconds: float) -> str:
    """ "0.13 s", "4 min 10 s", "2 h 5 min", "11 days 7 h"."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = timedelta(seconds=round(seconds))
    days, (hours, rest) = whole.days, divmod(whole.seconds, 3600)
    minutes, last = divmod(rest, 60)
    if days:
        return f"{days:,} {'day' if days == 1 else 'days'} {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {last} s"
