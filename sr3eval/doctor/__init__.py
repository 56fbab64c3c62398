"""`sr3eval doctor`: what is here, and what is missing for a config, with the remedy. PyTorch may be what is missing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sr3eval.config import kind_of
from sr3eval.doctor import machine
from sr3eval.doctor.findings import Finding, attempt, missing, note


def of_machine(network: bool = False) -> list[Finding]:
    """What is installed, devices, weights and the study's database, whatever the config.

    network: connect to a database server.
    """
    found = [*machine.versions(), *machine.extras(), *machine.devices()]
    return [*found, machine.weights(), machine.database(network)]


def of_config(data: Mapping[str, Any], out: Path, cache: Path | None = None) -> list[Finding]:
    """What a config needs: its data, weights, packages, device, and space in the folder `out`.

    Nothing is downloaded, written or computed. Files of weights are read.
    """
    try:
        from sr3eval.doctor import benchmark, cascade, search, training
        from sr3eval.weights import no_downloads
    except ModuleNotFoundError as error:
        return [missing("packages", f"{error.name} is not installed: pip install 'sr3eval[eval]'")]
    kinds = {"training": training, "search": search, "cascade": cascade, "run": benchmark}
    with no_downloads():
        found = list(kinds[kind_of(data)].check(data, out))
    places = [("out", out), *([("cache", cache)] if cache else [])]
    return [*found, *(machine.folder(name, path) for name, path in places)]


__all__ = ["Finding", "attempt", "missing", "note", "of_config", "of_machine"]
