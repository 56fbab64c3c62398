"""Published values beside ours: rows in italics without intervals, and errors that name the line."""

import re

import pandas as pd
import pytest

from sr3eval.benchmark import summary, table
from sr3eval.benchmark.published import PAPER_FILE, with_published
from sr3eval.benchmark.scores import read_run
from sr3eval.config import resolve_path
from sr3eval.errors import UserError

SIZES = {f"{name}/{i}": (16, 16) for name in ("Set5", "Set14") for i in range(3)}
VALUES = {"Ours": [30.0, 31, 32, 20, 21, 22], "R & D": [31.0, 32, 33, 21, 22, 23]}


@pytest.fixture(scope="module")
def results(write_run, conventions, tmp_path_factory):
    """Two methods on Set5 and Set14."""
    scores = {"psnr": VALUES, "ssim": {name: [value / 100 for value in values] for name, values in VALUES.items()}}
    run = write_run(tmp_path_factory.mktemp("published"), SIZES, scores, dataset=True)
    return summary.summarise(read_run(run), conventions)


def add(results, tmp_path, text):
    (tmp_path / "papers.csv").write_text(text)
    return with_published(results, str(tmp_path / "papers.csv"))


PAPERS = """method,dataset,metric,value,source
Swin|IR,Set5,psnr,32.9,Liang et al. 2021
Swin|IR,Set14,psnr,29.094,Liang et al. 2021
Ours,Set5,ssim,0.9,\\cite{me}
"""


def test_published_values_are_marked_rows(results, tmp_path):
    both = add(results, tmp_path, PAPERS)
    pd.testing.assert_frame_equal(both.iloc[: len(results)][results.columns], results, check_dtype=False)
    text = table.markdown(both)
    assert "| *Swin\\|IR* (Liang et al. 2021) | 32.9 " in text and "| 29.09 " in text
    assert "| **32.00** [31.00, 33.00]" in text  # 32.9 is higher, and not compared with
    assert "Italics: values as published, which took no part in comparisons (Swin|IR: Liang et al. 2021; Ours:" in text
    tex = table.latex(both)
    rows = ["\\textit{Swin|IR} & 32.9 & – & 29.09 & – \\\\", "\\textit{Ours} & – & 0.9 ($-0.6$) & – & – \\\\"]
    assert "\n    ".join(["\\midrule", *rows]) in tex
    assert "In italics, values as published (Swin|IR: Liang et al. 2021; Ours: \\cite{me}); in parentheses" in tex
    assert both["n"].dtype == results["n"].dtype


def test_ours_minus_what_was_published(results, tmp_path):
    """Beside the published value where the method is one of ours, and nothing where there is no value."""
    theirs = "OURS,Set5,psnr,32.1,A\nours,Set14,psnr,20.55,A\nR & D,Set5,psnr,,B\nSwin,Set5,psnr,31,A\n"
    both = add(results, tmp_path, f"method,dataset,metric,value,source\n{theirs}")
    assert both["difference"].dropna().tolist() == pytest.approx([31 - 32.1, 21 - 20.55])
    text, tex = table.markdown(both), table.latex(both)
    assert re.search(r"\| \*OURS\* \(A\) +\| 32\.1 \(-1\.1\) +\| – +\|", text)
    assert re.search(r"\| \*ours\* \(A\) +\| – +\| – +\| 20\.55 \(\+0\.45\) +\|", text)
    assert re.search(r"\| \*R & D\* \(B\) +\| – +\|", text)
    assert "- In parentheses: ours minus the published value." in text
    assert "\\textit{OURS} & 32.1 ($-1.1$) & –" in tex and "; in parentheses, ours minus them.}" in tex


def test_the_papers_values(write_run, conventions, tmp_path):
    """Those of the run's task, or of an item that is named, with what a reader must know of them as their source."""
    run = write_run(tmp_path / "run", {"a": (16, 16)}, {"psnr": {"SR3": [23.5], "Bicubic": [22.0]}})
    results = summary.summarise(read_run(run), conventions)
    with pytest.raises(UserError, match="the paper has no values of photos_16_64: name a table or figure of it"):
        with_published(results, "paper")
    with pytest.raises(UserError, match='the paper has no values of "table_7": did you mean "table_'):
        with_published(results, "paper:table_7")
    faces = with_published(results.assign(task="faces_16_128"), "paper")
    theirs = faces[faces["source"] != ""].set_index("method")
    assert theirs["value"].to_dict() == {"PULSE": 16.88, "FSRGAN": 23.01, "Regression": 23.96, "SR3": 23.04}
    assert set(theirs["source"]) == {"SR3, Table 2"}
    assert theirs["difference"].dropna().to_dict() == pytest.approx({"SR3": 0.46})
    assert "| *SR3* (SR3, Table 2) " in table.markdown(faces) and "| 23.04 (+0.46) |" in table.markdown(faces)
    assert "no part in comparisons (SR3, Table 2)." in table.markdown(faces)
    other = with_published(results, "paper:table_2")
    assert set(other["source"]) == {"", "SR3, Table 2; of other images, faces_16_128"}


def test_sources_are_said_once(results, tmp_path):
    theirs = "A,Set5,psnr,1,X\nB,Set5,psnr,2,Y\nC,Set14,psnr,3,X\nA,Set14,psnr,4,X\n"
    both = add(results, tmp_path, f"method,dataset,metric,value,source\n{theirs}")
    assert "no part in comparisons (A, C: X; B: Y)." in table.markdown(both)
    assert "values as published (A, C: X; B: Y)." in table.latex(both)


def test_the_file_of_the_papers_values():
    """Every value has a confidence, and what nobody published has neither."""
    values = pd.read_csv(resolve_path(PAPER_FILE), keep_default_na=False)
    assert set(values["confidence"]) == {"high", "medium", "low", ""}
    assert ((values["value"] == "") == (values["confidence"] == "")).all()
    assert not values.duplicated(["item", "method", "metric", "source"]).any()
    medium = values[(values["confidence"] == "medium") & (values["item"] == "figure_9")]
    assert set(medium["metric"]) == {"fool_rate_task1"}  # no copy of that panel was found


def test_one_set_needs_no_name(results, tmp_path):
    both = add(results[results["dataset"] == "Set5"], tmp_path, "metric,method,source,value\npsnr,EDSR,Lim,32.46\n")
    assert both.iloc[-1][["dataset", "method", "value"]].tolist() == ["Set5", "EDSR", 32.46]


def test_metrics_may_be_named_as_the_table_prints_them(results, tmp_path):
    both = add(results, tmp_path, PAPERS.replace(",psnr,", ",PSNR,").replace(",ssim,", ",SSIM,"))
    assert both.iloc[-3:]["metric"].tolist() == ["psnr", "psnr", "ssim"]


BAD = {
    "metric": ("A,Set5,pnsr,1,B\n", 'line 2: unknown metric "pnsr": did you mean "psnr"?'),
    "data set": ("A,Set5,psnr,1,B\nA,set14,psnr,1,B\n", 'line 3: unknown data set "set14": did you mean "Set14"?'),
    "no data set": ("A,,psnr,1,B\n", 'line 2: unknown data set "": valid: Set14, Set5'),
    "value": ("A,Set5,psnr,30 dB,B\n", 'line 2: "30 dB" is no number'),
    "infinite": ("A,Set5,psnr,inf,B\n", 'line 2: "inf" is not finite'),
    "source": ("A,Set5,psnr,30,\n", "line 2: no source"),
    "fields": ("A,Set5,psnr,30\n", "line 2: has another number of fields than the header"),
    "more fields": ("A,Set5,psnr,30,B,C\n", "line 2: has another number of fields than the header"),
    "twice": ("A,Set5,psnr,1,B\n\nA,Set5,psnr,2,B\n", "line 4: the same method, metric and source as line 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_name_the_line(results, tmp_path, case):
    text, message = BAD[case]
    with pytest.raises(UserError) as caught:
        add(results, tmp_path, f"method,dataset,metric,value,source\n{text}")
    assert str(caught.value) == f"{tmp_path / 'papers.csv'}, {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method,metric,value\n", "has no column source"),
        ("method,metrics,value,source\n", 'unknown column "metrics": did you mean "metric"?'),
        ("", "has no column method"),
    ],
)
def test_errors_of_the_header(results, tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        add(results, tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'papers.csv'}: {message}"
    with pytest.raises(UserError, match="not a readable table"):
        with_published(results, str(tmp_path / "none.csv"))
