"""Public judgements in miniature copies of the layouts they are downloaded in."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from analysis.errors import DataError
from analysis.public_judgements import bapps, main, pipal, sriqa_opinions, sriqa_votes

METHODS = ["SwinIRx4", "SeeSRx4", "Original"]


def judge(folder, *shares):
    (folder / "judge").mkdir(parents=True)
    for number, share in enumerate(shares):
        np.save(folder / "judge" / f"{number:06d}.npy", np.array([share], np.float32))  # as BAPPS has them
    return folder


def test_bapps(tmp_path):
    first = judge(tmp_path / "2afc/val/superres", 0.2, 1.0, 0.5)
    votes = bapps([first])
    assert votes["image_id"].tolist() == ["000000", "000001", "000002"]
    np.testing.assert_allclose(votes["share_a"], [0.8, 0, 0.5], atol=1e-6)  # of p0; the files hold that of p1
    assert votes["n"].fillna(0).tolist() == [5, 5, 0]  # half of five people there is not
    both = bapps([first, judge(tmp_path / "2afc/train/cnn", 0.5)])
    assert both["image_id"].tolist()[-2:] == ["superres/000002", "cnn/000000"] and both["n"].iloc[-1] == 2
    assert both["dataset"].tolist() == ["superres"] * 3 + ["cnn"]
    with pytest.raises(DataError, match="holds no judge/"):
        bapps([tmp_path])
    judge(tmp_path / "2afc/val/color", 1.5)
    with pytest.raises(DataError, match=r"000000.npy: must be one number from 0 to 1"):
        bapps([tmp_path / "2afc/val/color"])


def test_pipal(tmp_path):
    (tmp_path / "A0001.txt").write_text("A0001_00_00.bmp,1520.0648\nA0001_06_10.bmp,1400.5\n")
    (tmp_path / "A0002.txt").write_text("A0002_00_00.bmp,1466.4372\n\n")
    found = pipal(tmp_path)
    assert found["image_id"].tolist() == ["A0001", "A0001", "A0002"]
    assert found["method"].tolist() == ["00_00", "06_10", "00_00"]
    assert found["opinion"].tolist() == [1520.0648, 1400.5, 1466.4372]
    (tmp_path / "A0002.txt").write_text("A0002_00_00.bmp\n")
    with pytest.raises(DataError, match=r"A0002.txt, line 1: .* must be a picture and its score"):
        pipal(tmp_path)


def answer(folder, person, a, b, *labels, image="online15"):
    path = folder / "labels" / person / image / f"{image}_{a}_{b}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    named = [{"Name": f"{image}_{name}.png", "Label": label} for name, label in zip((a, b), labels, strict=True)]
    path.write_text(json.dumps({"Picture_01": named[0], "Picture_02": named[1]}))
    return path


def test_sriqa(tmp_path):
    answer(tmp_path, "A", "SwinIRx4", "SeeSRx4", "Negative", "Positive")
    answer(tmp_path, "B", "SeeSRx4", "SwinIRx4", "Positive", "Negative")  # the other way round
    answer(tmp_path, "C", "SwinIRx4", "SeeSRx4", "Similar", "Similar")
    broken = answer(tmp_path, "D", "SwinIRx4", "SeeSRx4", "Positive", "Negative")
    votes = sriqa_votes(tmp_path)
    row = votes.iloc[0]
    assert len(votes) == 1 and (row["model_a"], row["model_b"], row["image_id"]) == ("SeeSRx4", "SwinIRx4", "online15")
    assert (row["share_a"], row["n"], row["ties"]) == (2.5 / 4, 4, 1)
    broken.write_text("{}")
    with pytest.raises(DataError, match=r"_SwinIRx4_SeeSRx4.json: not an answer of SRIQA-Bench \(KeyError"):
        sriqa_votes(tmp_path)
    (tmp_path / "MOS").mkdir()
    (tmp_path / "MOS" / "online15.txt").write_text("online15_SeeSRx4.png,100.0\nonline15_Original.png,64.5\n")
    found = sriqa_opinions(tmp_path)
    assert found[["image_id", "method", "opinion"]].to_numpy().tolist() == [
        ["online15", "SeeSRx4", 100.0],
        ["online15", "Original", 64.5],
    ]


def test_command(tmp_path):
    folder = judge(tmp_path / "2afc/val/superres", 0, 0, 0.2, 1)
    rows = [(m, f"{i:06d}", "lpips", v) for i in range(4) for m, v in (("p0", 0.1), ("p1", 0.2))]
    table = pd.DataFrame(rows, columns=["method", "image_id", "metric", "value"])
    table.to_csv(tmp_path / "scores.csv", index=False)
    line = ["bapps", str(folder), "--scores", str(tmp_path / "scores.csv")]
    unsaid = CliRunner().invoke(main, line)
    assert unsaid.exit_code == 1 and "is higher or lower better? unknown for metric lpips" in unsaid.output
    told = CliRunner().invoke(main, [*line, "--lower", "lpips", "--out", str(tmp_path / "table.csv")])
    assert told.exit_code == 0 and "0.700" in told.output
    assert pd.read_csv(tmp_path / "table.csv")["score"].tolist() == pytest.approx([0.7])  # (1 + 1 + .8 + 0) / 4
    results = pd.DataFrame(
        [("t", "p0", "lpips", 1.0, False)], columns=["task", "method", "metric", "value", "higher_is_better"]
    )
    results.to_csv(tmp_path / "results.csv", index=False)
    same = CliRunner().invoke(main, [*line, "--results", str(tmp_path / "results.csv")])
    assert same.output == told.output
    (tmp_path / "labels").mkdir()
    rows = "".join(f"A0001_00_{i:02d}.bmp,{1400 + i}\n" for i in range(4))
    (tmp_path / "labels" / "A0001.txt").write_text(rows)
    scores = "method,image_id,metric,value\n" + "".join(f"00_{i:02d},A0001,psnr,{i}\n" for i in range(4))
    (tmp_path / "psnr.csv").write_text(scores)
    line = ["pipal", str(tmp_path / "labels"), "--scores", str(tmp_path / "psnr.csv"), "--higher", "psnr"]
    found = CliRunner().invoke(main, line)
    assert found.exit_code == 0 and "no intervals: 1 references" in found.output and "1.000" in found.output
    missing = CliRunner().invoke(main, ["sriqa", str(tmp_path), "--scores", str(tmp_path / "none.csv")])
    assert missing.exit_code == 1 and "none.csv" in missing.output
