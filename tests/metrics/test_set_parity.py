"""Numbers of sets, and of networks, against the libraries that people cite: the same weights, the same photographs."""

import itertools

import lpips
import numpy as np
import pytest
import pytorch_fid.inception
import timm
import torch
import torchvision
from PIL import Image
from skimage import data
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from sr3eval import metrics
from sr3eval.features import networks
from sr3eval.features.rows import Rows
from sr3eval.folders import stable_hash
from sr3eval.images import from_uint8, round_to_8bit, to_uint8
from sr3eval.metrics import Batch, kid, manifold
from sr3eval.metrics.inception_score import SPLITS, ClassSums, inception_score
from sr3eval.metrics.lpips import BACKBONES

pytestmark = pytest.mark.usefixtures("one_thread")


def crops(height: int, width: int) -> Batch:
    """Six crops of photographs; outputs are the same with noise."""
    photographs = [data.astronaut(), data.chelsea(), data.coffee()]
    cut = [p[y : y + height, 60 : 60 + width] for p in photographs for y in (0, 70)]
    hr = from_uint8(torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).contiguous())
    sr = round_to_8bit(hr + 0.1 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0)))
    return Batch([f"image/{i}" for i in range(len(hr))], sr, hr)


@pytest.fixture(scope="module")
def images():
    return crops(64, 48)


@pytest.fixture(scope="module")
def peer_features(images, random_weights, one_thread):
    """torch-fidelity's own (pooled, logits) of the outputs and of HR."""
    path = random_weights / networks.INCEPTION.file
    network = FeatureExtractorInceptionV3("peer", ["2048", "logits_unbiased"], feature_extractor_weights_path=path)
    return [network(to_uint8(part)) for part in (images.sr, images.hr)]


def nuclear_frechet(x: np.ndarray, y: np.ndarray) -> float:
    """The distance of the rows' moments by the nuclear norm of their cross product: exact at any rank."""
    centred = [(rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1) for rows in (x, y)]
    root = np.linalg.norm(centred[0] @ centred[1].T, ord="nuc")
    return float(((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + sum((c**2).sum() for c in centred) - 2 * root)


def largest_relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).norm(dim=1) / b.norm(dim=1)).max())


def test_inception_features_equal_torch_fidelity_s(images, peer_features, offline):
    """Folded batch norm and channels-last move them by rounding alone."""
    ours = networks.inception()(images.sr)
    assert largest_relative(ours.pooled, peer_features[0][0]) < 1e-5
    assert largest_relative(ours.logits, peer_features[0][1]) < 1e-5


def test_features_do_not_depend_on_the_batch(images, offline):
    network = networks.inception()
    both, alone = network(images.sr), network(images.sr[2:3])
    assert network(images.sr) is both  # the metrics of a run share their batches
    assert largest_relative(alone.pooled, both.pooled[2:3]) < 1e-5


def test_fid_and_kid_equal_torch_fidelity_s(images, peer_features, offline):
    sr, hr = (features[0] for features in peer_features)
    statistics = [fid_features_to_statistics(features) for features in (sr, hr)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    fid, distance = metrics.load("fid"), metrics.load("kid")
    for metric in (fid, distance):
        metric.update(images)
    assert fid.compute().value == pytest.approx(theirs, rel=1e-4)
    assert fid.compute().value == pytest.approx(nuclear_frechet(sr.double().numpy(), hr.double().numpy()), rel=1e-5)
    theirs = kid_features_to_metric(sr.double(), hr.double(), kid_subsets=1, kid_subset_size=len(sr), verbose=False)
    assert distance.compute().value == pytest.approx(theirs["kernel_inception_distance_mean"] * 1e3, rel=1e-4)


def test_fid_equals_pytorch_fid_s(images, offline, monkeypatch):
    """Its network with its resize. Its distance needs a `scipy.linalg.sqrtm` that SciPy 1.18 no longer has."""
    weights = torch.load(offline / networks.INCEPTION.file, weights_only=True)
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: weights)
    network = pytorch_fid.inception.InceptionV3().eval()
    theirs = [network(part)[0].flatten(1).double().numpy() for part in (images.sr, images.hr)]
    fid = metrics.load("fid", resize="pytorch_fid")
    fid.update(images)
    assert fid.compute().value == pytest.approx(nuclear_frechet(*theirs), rel=1e-5)
    assert "resize pytorch_fid" in fid.convention.settings


@pytest.mark.parametrize("size", [(64, 48), (300, 299), (350, 400)])
def test_clean_input_is_pillow_s_bicubic(size):
    """clean-fid: each channel through Pillow's mode F, clipped and not rounded, then as the TensorFlow graph has it."""
    photo = data.astronaut()[: size[0], : size[1]]
    levels = [Image.fromarray(photo[..., c].astype(np.float32)).resize((299, 299), 3) for c in range(3)]
    expected = (np.stack([np.asarray(level).clip(0, 255) for level in levels]) - 128) / 128
    image = from_uint8(torch.from_numpy(photo).permute(2, 0, 1)[None])
    ours = networks.inception_input(image, "clean")[0].numpy()
    assert np.abs(ours - expected).max() < 0.01 / 128  # 0.01 of 255 levels: Pillow's coefficients are float64


def given(n: int, d: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two clouds that overlap in part, [n, d] float32."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, d, generator=generator)
    return x * torch.linspace(0.7, 1.3, n)[:, None] + 0.3, y


def test_kid_of_given_features_equals_torch_fidelity_s():
    x, y = (part.double() for part in given(80))
    theirs = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=80, verbose=False)
    ours = kid.kernel_inception_distance(x.numpy(), y.numpy())
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)


def by_block(rows: torch.Tensor, blocks: int) -> dict[str, Rows]:
    found = {str(block): Rows() for block in range(blocks)}
    for i, row in enumerate(rows):
        found[str(i % blocks)].add([str(i)], row[None])
    return found


def test_blocks_make_no_difference_and_each_is_left_out():
    """KID and precision by block, and without each, equal the plain formulas on the rows that remain."""
    x, y = given(60)
    value, without = kid.evaluate(by_block(x, 5), by_block(y, 5))
    assert value == pytest.approx(1e3 * kid.kernel_inception_distance(x.double().numpy(), y.double().numpy()), rel=1e-9)
    share, shares = manifold.evaluate(by_block(x, 5), by_block(y, 5))
    assert share == manifold.coverage(x.double(), y.double())
    for block in range(5):
        rest_x, rest_y = (part[[i for i in range(60) if i % 5 != block]].double() for part in (x, y))
        plain = 1e3 * kid.kernel_inception_distance(rest_x.numpy(), rest_y.numpy())
        assert without[str(block)] == pytest.approx(plain, rel=1e-9)
        assert shares[str(block)] == manifold.coverage(rest_x, rest_y)


@pytest.mark.parametrize("seed", range(5))
def test_precision_and_recall_equal_torch_fidelity_s(seed):
    x, y = given(150, d=6, seed=seed)
    theirs = prc_features_to_metric(x, y, verbose=False)
    assert 0.5 < theirs["recall"] < theirs["precision"] < 1 or 0.5 < theirs["precision"] <= theirs["recall"] < 1
    precision, recall = manifold.coverage(x.double(), y.double()), manifold.coverage(y.double(), x.double())
    assert round(precision * 150) == round(theirs["precision"] * 150)
    assert round(recall * 150) == round(theirs["recall"] * 150)


@pytest.mark.parametrize("each", [1, 8])
def test_inception_score_equals_torch_fidelity_s(each):
    """Its splits are runs of rows, ours follow from the ids: ids are picked so that the two coincide."""
    of_split = [[] for _ in range(SPLITS)]
    for i in itertools.count():
        of_split[stable_hash("split", f"{i}") % SPLITS].append(f"{i}")
        if min(map(len, of_split)) >= each:
            break
    ids = [image_id for split in of_split for image_id in split[:each]]
    logits = 3 * torch.randn(len(ids), 1008, generator=torch.Generator().manual_seed(1))
    theirs = isc_features_to_metric(logits, splits=SPLITS, shuffle=False)["inception_score_mean"]
    shuffled = torch.randperm(len(ids), generator=torch.Generator().manual_seed(2)).tolist()
    sums = ClassSums()
    for start in range(0, len(ids), 7):
        rows = shuffled[start : start + 7]
        sums.add([ids[row] for row in rows], logits[rows])
    assert inception_score(sums) == pytest.approx(theirs, rel=1e-6)


def test_top_k_errors_equal_plain_timm(offline):
    """Labels are each image's k-th guess, k = 1, 2, 3 ...: right at the top once, within five five times."""
    batch = crops(224, 224)
    model = timm.create_model("resnet50.tv_in1k", pretrained=False).eval()
    model.load_state_dict(torch.load(offline / networks.RESNET50.file, weights_only=True))
    wanted = timm.data.resolve_model_data_config(model)
    normalise = torchvision.transforms.Normalize(wanted["mean"], wanted["std"])
    with torch.inference_mode():
        logits = model(normalise(batch.sr))
    assert largest_relative(networks.resnet50().logits(batch.sr), logits) < 1e-5
    order = logits.topk(10).indices
    labels = [int(order[i, i]) for i in range(len(order))]
    hits = {k: [label in order[i, :k] for i, label in enumerate(labels)] for k in (1, 5)}
    for k in (1, 5):
        metric = metrics.load(f"top{k}_error")
        metric.update(Batch(batch.ids, batch.sr, labels=labels))
        assert metric.compute().value == pytest.approx(1 - sum(hits[k]) / len(labels))
        assert list(metric.compute().per_image.values()) == [float(not hit) for hit in hits[k]]
    with torch.inference_mode():
        same = (model(normalise(batch.hr)).argmax(dim=1) == order[:, 0]).double().tolist()
    agreement = metrics.load("top1_agreement_resnet50")
    agreement.update(batch)
    assert list(agreement.compute().per_image.values()) == same


def test_lpips_equals_the_package(images, offline, monkeypatch):
    """Its own constructor, with the random AlexNet where it would load torchvision's."""
    alexnet = torchvision.models.alexnet()
    alexnet.load_state_dict(torch.load(offline / BACKBONES["alex"].file, weights_only=True), strict=False)
    monkeypatch.setattr(lpips.pretrained_networks.tv, "alexnet", lambda **_: alexnet)
    theirs = lpips.LPIPS(net="alex", verbose=False)(images.sr, images.hr, normalize=True).flatten()
    metric = metrics.load("lpips")
    metric.update(images)
    assert list(metric.compute().per_image.values()) == pytest.approx(theirs.tolist(), rel=1e-6)
    assert metric.compute().value > 0.001
