"""Files of statistics that other libraries wrote."""

import contextlib

import numpy as np
import pytest

from sr3eval.errors import UserError
from sr3eval.features.statistics import load_statistics

D, NETWORK = 6, "a network, weights sha256 01234567, resize clean"


@pytest.fixture
def moments():
    rows = np.random.default_rng(0).normal(size=(40, D))
    return rows.mean(axis=0), np.cov(rows, rowvar=False)


@pytest.mark.parametrize(
    ("write", "more", "dtype"),
    [
        (np.savez_compressed, {}, np.float64),  # pytorch-fid's --save-stats and clean-fid's make_custom_stats
        (np.savez, {}, np.float32),
        (np.savez, {"arr_0": np.zeros((3, 8)), "mu_s": np.zeros(2), "sigma_s": np.eye(2)}, np.float64),  # ADM's
    ],
)
def test_layouts_of_other_libraries_are_read(tmp_path, moments, write, more, dtype):
    path = tmp_path / "theirs.npz"
    write(path, mu=moments[0].astype(dtype), sigma=moments[1].astype(dtype), **more)
    statistics = load_statistics(path, NETWORK, D)
    for found, wanted in zip(statistics.statistics(), moments, strict=True):
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, wanted.astype(dtype))
    assert statistics.factor() is None
    assert "theirs.npz" in statistics.description and "not stated" in statistics.description


def test_another_dimension_is_refused(tmp_path, moments):
    path = tmp_path / "small.npz"
    np.savez(path, mu=moments[0], sigma=moments[1])
    with pytest.raises(UserError, match="small.npz: statistics of 6 features; a network.* has 2048"):
        load_statistics(path, NETWORK, 2048)


class Canary:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("code in a file was run",)


def test_what_are_no_statistics_is_refused(tmp_path, moments):
    mu, sigma = moments
    contents = {
        "kid": {"feats": np.zeros((4, D))},  # clean-fid's other file
        "half": {"mu": mu},
        "shape": {"mu": mu, "sigma": sigma[:-1]},
        "rows": {"mu": mu[None], "sigma": sigma},
        "nan": {"mu": mu, "sigma": sigma * np.nan},
        "text": {"mu": np.array(["a"] * D), "sigma": sigma},
        "code": {"mu": np.array([Canary()] * D, object), "sigma": sigma},
    }
    for name, arrays in contents.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(UserError, match=f"{name}.npz: "):
            load_statistics(tmp_path / f"{name}.npz", NETWORK, D)


def test_files_that_cannot_be_read_are_refused(tmp_path, moments):
    whole = tmp_path / "whole.npz"
    np.savez(whole, mu=moments[0], sigma=moments[1])
    np.save(tmp_path / "array.npy", moments[0])
    contents = {
        "truncated.npz": whole.read_bytes()[:-40],
        "headless.npz": whole.read_bytes()[40:],
        "empty.npz": b"",
        "text.npz": b"mu, sigma",
        "array.npz": (tmp_path / "array.npy").read_bytes(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: "):
            load_statistics(tmp_path / name, NETWORK, D)
    np.savez_compressed(whole, mu=moments[0], sigma=moments[1])
    for byte in range(0, whole.stat().st_size, 7):  # one byte of a download is wrong
        content = bytearray(whole.read_bytes())
        content[byte] ^= 0x5A
        (tmp_path / "damaged.npz").write_bytes(content)
        with contextlib.suppress(UserError):  # the bytes of time stamps and the like do not matter
            np.testing.assert_array_equal(load_statistics(tmp_path / "damaged.npz", NETWORK, D).mu, moments[0])
    with pytest.raises(UserError, match="nowhere.npz: no such file"):
        load_statistics(tmp_path / "nowhere.npz", NETWORK, D)
    with pytest.raises(UserError, match="not a file of statistics"):
        load_statistics(tmp_path, NETWORK, D)
