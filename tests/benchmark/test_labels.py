"""Classes of images, and a run that scores with them: the paper's Table 4 in small."""

import pandas as pd
import pytest
import tomli_w
import torch
from click.testing import CliRunner

from benchmark import main
from sr3eval.benchmark.labels import read_labels
from sr3eval.errors import UserError
from sr3eval.images import load, save

IDS = ["val/n01440764/a", "val/n15075141/b"]  # tench and toilet tissue: the first and the last class


def test_classes_come_from_synsets_and_from_tables(tmp_path):
    assert read_labels("folders", IDS) == dict(zip(IDS, (0, 999), strict=True))
    (tmp_path / "labels.csv").write_text(f"image_id,label\n{IDS[0]},7\n{IDS[1]},n01443537\nother,1\n")
    assert read_labels(str(tmp_path / "labels.csv"), IDS) == dict(zip(IDS, (7, 1), strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,label\n" + IDS[0] + ",0\n", "val/n15075141/b is not in"),
        (f"image_id,label\n{IDS[0]},0\n{IDS[1]},1000\n", '"1000" of val/n15075141/b is neither a class from 0 to 999'),
        (f"image_id,label\n{IDS[0]},0\n{IDS[1]},tench\n", '"tench" of val/n15075141/b is neither'),
        (f"image_id,label\n{IDS[0]},0\n{IDS[0]},1\n", "val/n01440764/a is listed twice"),
        (f"image,label\n{IDS[0]},0\n", "has no column 'image_id'"),
        ("", "not a readable table"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_labels(str(tmp_path / "labels.csv"), IDS)


def test_missing_tables_and_synsets_are_named():
    with pytest.raises(UserError, match='no such file; write "folders"'):
        read_labels("absent.csv", IDS)
    with pytest.raises(UserError, match="photos/a lies in no folder named by synset"):
        read_labels("folders", ["photos/a"])


def test_table_4_in_small(random_weights, tmp_path):
    """Errors of ResNet-50 on reference and bicubic, against plain timm on the pictures that the run wrote."""
    import timm
    from skimage import data

    synsets = ("n01440764", "n02123045", "n07930864")
    for synset, name in zip(synsets, ("astronaut", "chelsea", "coffee"), strict=True):
        picture = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)
        save(tmp_path / "val" / synset / "ILSVRC2012_val_1.png", picture)
    config = {
        "task": "imagenet_56_224",
        "metrics": ["top1_error", "top5_error", "top1_agreement_resnet50"],
        "data": {"images": str(tmp_path / "val"), "labels": "folders"},
        "method": [{"kind": "reference"}, {"kind": "bicubic"}],
    }
    runner = CliRunner(env={"SR3EVAL_WEIGHTS": str(random_weights)})
    line = ["run", str(tmp_path / "c.toml"), "--out", str(tmp_path / "run")]
    (tmp_path / "c.toml").write_text(tomli_w.dumps(config))
    result = runner.invoke(main, line)
    assert result.exit_code == 0, result.stderr

    network = timm.create_model("resnet50.tv_in1k", pretrained=False)
    network.load_state_dict(torch.load(random_weights / "resnet50-0676ba61.pth", weights_only=True))
    mean, std = (torch.tensor(network.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    labels = torch.tensor(list(read_labels("folders", [f"{s}/x" for s in synsets]).values()))
    results = pd.read_csv(tmp_path / "run" / "results.csv").set_index(["method", "metric"])["value"]
    top = {}
    for method in ("reference", "bicubic"):
        pictures = [load(tmp_path / "run" / "images" / method / s / "ILSVRC2012_val_1.png") for s in synsets]
        with torch.inference_mode():
            top[method] = network.eval()((torch.stack(pictures) - mean) / std).topk(5).indices
        for k in (1, 5):
            expected = (top[method][:, :k] != labels[:, None]).all(dim=1).float().mean().item()
            assert results[method, f"top{k}_error"] == pytest.approx(expected)
    agreement = (top["bicubic"][:, 0] == top["reference"][:, 0]).float().mean().item()
    assert results["bicubic", "top1_agreement_resnet50"] == pytest.approx(agreement)

    (tmp_path / "c.toml").write_text(tomli_w.dumps(config | {"data": {"images": str(tmp_path / "val")}}))
    refused = runner.invoke(main, [*line[:-1], str(tmp_path / "other")])
    assert refused.exit_code == 1
    assert 'top1_error: needs the classes of the images: data.labels = "folders"' in refused.stderr
