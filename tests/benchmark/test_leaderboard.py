"""`benchmark.py leaderboard`: what stands in one table, which methods share a letter, and the page in a browser."""

import itertools
import random
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.stats import permutation_test
from statsmodels.stats.multitest import multipletests

from sr3eval.benchmark import bundle, groups, run
from sr3eval.commands import main
from sr3eval.metrics import Convention
from sr3eval.significance import sign_flip_p, sign_flip_p_of_many

PSNR = Convention("psnr", "PSNR", True, "RGB", unit="dB", decimals=2)


def shares(letters, one, other):
    return bool(set(re.findall(r"[a-z]\d*", letters[one])) & set(re.findall(r"[a-z]\d*", letters[other])))


def test_two_share_a_letter_where_they_are_similar_and_only_there():
    """On random graphs; each letter's group is as large as it can be, found by trying all subsets."""
    random.seed(0)
    for count in (1, 2, 5, 7, 7, 7):
        names = [f"m{i}" for i in range(count)]
        near = {pair for pair in itertools.combinations(names, 2) if random.random() < 0.6}
        similar = {name: {b if a == name else a for a, b in near if name in (a, b)} for name in names}
        letters = groups._named(names, similar)
        assert all(shares(letters, a, b) == ((a, b) in near) for a, b in itertools.combinations(names, 2))
        subsets = [set(s) for size in range(1, count + 1) for s in itertools.combinations(names, size)]
        cliques = [s for s in subsets if all(b in similar[a] for a, b in itertools.permutations(s, 2))]
        maximal = [s for s in cliques if not any(s < other for other in cliques)]
        by_letter = {letter: {n for n in names if letter in letters[n]} for letter in "".join(letters.values())}
        assert sorted(map(sorted, by_letter.values())) == sorted(map(sorted, maximal)) and "a" in letters["m0"]


def test_letters_are_those_of_independent_tests():
    """Permutation tests by SciPy, adjusted by statsmodels, over 12 images of which one method lacks nothing."""
    rng = np.random.default_rng(1)
    images, names = [f"i{i}" for i in range(12)], ["best", "near", "far", "noisy"]
    base = rng.normal(30, 3, 12)
    values = {"best": base, "near": base - rng.normal(0.02, 0.1, 12), "far": base - rng.normal(1, 0.2, 12)}
    values["noisy"] = base - rng.normal(0.6, 1.2, 12)
    rows = [(m, i, i, v) for m, of in values.items() for i, v in zip(images, of, strict=True)]
    scores = pd.DataFrame(rows, columns=["method", "image_id", "group", "value"])
    letters = groups.letters(scores, PSNR)
    pairs = list(itertools.combinations(names, 2))
    options = {"permutation_type": "samples", "vectorized": False, "n_resamples": np.inf}
    p = [permutation_test((values[a], values[b]), lambda x, y: (x - y).sum(), **options).pvalue for a, b in pairs]
    different = multipletests(p, 0.05, method="holm")[0]
    assert 0 < different.sum() < len(pairs)
    assert [not shares(letters, a, b) for a, b in pairs] == list(different)
    assert groups.letters(scores[scores["image_id"].isin(images[:6])], PSNR) == {}  # 6 pairs, p of 1/32 at least


def test_the_normal_limit_is_that_of_many_sign_flips():
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.1, 0.2, 0.3):
        differences, units = rng.standard_t(3, 80) + shift, np.arange(80).astype(object)
        assert sign_flip_p_of_many(differences, units) == pytest.approx(sign_flip_p(differences, units), abs=0.02)
    few = rng.normal(0.5, 1, 10), np.arange(10).astype(object)
    assert sign_flip_p_of_many(*few) == sign_flip_p(*few)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three people's runs. Ann and Ben have the same images, as a set with a name and as one without; Cy has others."""
    world = tmp_path_factory.mktemp("leaderboard")
    rng = np.random.default_rng(0)
    for number in range(12):
        hr = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        for where, kept in (("ann", 1.0), ("ben", 0.6), ("cy", 1.0)):
            for kind, image in (("hr", hr), ("out", np.clip(hr * kept + rng.normal(0, 9, hr.shape), 0, 255))):
                inside = "Set/" if (where, kind) == ("ann", "out") else ""
                path = world / where / kind / f"{inside}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((255 - image if where == "cy" else image).astype(np.uint8)).save(path)
    for who, name in (("ann", "Set"), ("ben", None), ("cy", None)):
        data = [{"images": str(world / who / "hr")} | ({"name": name} if name else {})]
        methods = [
            {"kind": "reference"},
            {"kind": "bicubic"},
            {"name": "net", "kind": "precomputed", "folder": str(world / who / "out")},
        ]
        config = {"task": {"scale": 2}, "metrics": ["psnr"], "data": data, "method": methods}
        run(config, world / "runs" / who, world / "cache")
    bundle.write(world / "runs/ben", world / "ben.zip")
    return world


def page_of(out, *given):
    result = CliRunner().invoke(main, ["leaderboard", *map(str, given), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out.read_text(encoding="utf-8")


def rows_of(text):
    """[(table, method, run, PSNR)] of a page."""
    tables = text.split("<h2>")[1:-1]
    row = r'<tr><th scope="row" data-order="([^"]*)">.*?data-order="([^"]*)">.*?data-order="([^"]*)">'
    return [(n, *found) for n, table in enumerate(tables) for found in re.findall(row, table, re.DOTALL)]


def test_one_table_for_the_same_images_and_another_for_others(world, tmp_path):
    text = page_of(tmp_path / "page.html", world / "runs/ann", world / "ben.zip", world / "runs/cy")
    rows = {(table, method): (who, float(psnr)) for table, method, who, psnr in rows_of(text) if psnr}
    assert list(rows)[:3] == sorted(list(rows)[:3], key=lambda key: -rows[key][1])
    assert [method for _, method, *_ in rows_of(text)].count("reference") == 2
    rows = {key: row for key, row in rows.items() if key[1] != "reference"}
    sources = {key: who for key, (who, _) in rows.items()}
    assert sources == {
        (0, "ann/net"): "ann",
        (0, "ben/net"): "ben",
        (0, "bicubic"): "ann, ben",
        (1, "net"): "cy",
        (1, "bicubic"): "cy",
    }
    for who in ("ann", "cy"):
        scores = pd.read_csv(world / f"runs/{who}/results.csv").set_index("method")["value"]
        assert rows[(0, "ann/net") if who == "ann" else (1, "net")][1] == scores["net"]


def test_other_conventions_have_a_table_of_their_own(world, tmp_path):
    other = shutil.copytree(world / "runs/ben", tmp_path / "older")
    results = pd.read_csv(other / "results.csv", keep_default_na=False)
    script = "<script>alert(1)</script>"
    results.assign(settings=f"RGB, rounded {script}", unit=script).to_csv(other / "results.csv", index=False)
    text = page_of(tmp_path / "page.html", world / "runs/ann", other)
    assert {table for table, *_ in rows_of(text)} == {0, 1}
    assert "apart from the other table of these images, for PSNR follows other settings here: RGB, rounded &lt;" in text
    assert script not in text and "PSNR (&lt;script&gt;" in text


def test_the_page_sorts_in_a_browser_without_a_network(world, tmp_path, chromium):
    page_of(tmp_path / "page.html", world / "runs/ann", world / "ben.zip")
    page = chromium.new_page(viewport={"width": 360, "height": 700})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "page.html").as_uri())

    def values():
        cells = page.locator("tbody td:nth-child(3)").evaluate_all("all => all.map(cell => cell.dataset.order)")
        assert cells[-1] == ""  # HR's, which is infinite
        return list(map(float, cells[:-1]))

    assert len(values()) == 3 and values() == sorted(values(), reverse=True)
    page.get_by_role("button", name="PSNR").click()
    assert values() == sorted(values()) and page.locator("th[aria-sort=ascending]").inner_text().startswith("PSNR")
    page.get_by_role("button", name="Method").click()
    methods = page.locator("tbody th").all_inner_texts()
    assert methods == sorted(methods) and page.locator("th[aria-sort]").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert asked == [(tmp_path / "page.html").as_uri()]
    page.close()
