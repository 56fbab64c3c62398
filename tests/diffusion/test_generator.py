"""Generators: training with and without classes, labels of the data, sampling, errors."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sr3eval.config import from_dict, read_toml
from sr3eval.diffusion import checkpoint, generator, stream
from sr3eval.diffusion.generator import GeneratorSampler
from sr3eval.diffusion.labels import class_names
from sr3eval.diffusion.labels import labels as labels_of
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.sample_folder import SampleConfig, sample_folder
from sr3eval.diffusion.schedule import NoiseSchedule
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.diffusion.unet import UNetConfig
from sr3eval.errors import UserError
from sr3eval.images import load, save
from tests.diffusion.small_training import CPU, run, same

ROOT = Path(__file__).parents[2]
COLORS = {"blue": (0.1, 0.2, 0.9), "green": (0.1, 0.8, 0.2), "red": (0.9, 0.1, 0.1)}


@pytest.fixture(scope="session")
def classes(tmp_path_factory):
    """Six flat images of each of three classes, a folder a class, each class of a colour of its own."""
    folder = tmp_path_factory.mktemp("classes")
    for name, color in COLORS.items():
        for index in range(6):
            shade = 0.8 + 0.04 * index
            save(folder / name / f"{index}.png", torch.tensor(color)[:, None, None].expand(3, 20, 24) * shade)
    return folder


@pytest.fixture
def plain(classes):
    """The plain values of a DDPM's config."""
    return {
        "model": "ddpm",
        "schedule": {"start": 1e-4, "end": 0.02, "steps": 1000},
        "data": {"images": str(classes), "validation": str(classes), "validation_images": 4},
        "unet": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "image_size": 8, "attention": [4], "dropout": 0.1},
        "optimiser": {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 2},
        "log": {"every": 2, "validate_every": 3, "save_every": 2, "sampling_steps": 2},
    }


@pytest.fixture
def labelled(plain):
    """The plain values of a class-conditional Improved DDPM's config."""
    schedule = {"spacing": "cosine", "steps": 100}
    return plain | {"model": "improved_ddpm", "schedule": schedule, "unet": plain["unet"] | {"classes": 3}}


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory, classes):
    """The file of an untrained DDPM with random weights."""
    return untrained(tmp_path_factory.mktemp("ddpm"), "ddpm", classes)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory, classes):
    return untrained(tmp_path_factory.mktemp("improved"), "improved_ddpm", classes, classes=3)


def untrained(folder, model, images, **unet):
    config = {
        "model": model,
        "data": {"images": str(images)},
        "unet": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "image_size": 8, "attention": [4], **unet},
        "optimiser": {"steps": 1, "batch_size": 1, "learning_rate": 1.0, "warmup_steps": 0},
        "schedule": {"start": 1e-4, "end": 0.02, "steps": 50},
    }
    if unet:
        config["classes"] = list(COLORS)
    torch.manual_seed(0)
    network = precondition(model, from_dict(TrainConfig, config).network).unet
    for weight in network.parameters():  # untrained, residual branches are zero and hide what comes before
        torch.nn.init.normal_(weight, std=0.2)
    path = folder / "model.safetensors"
    checkpoint.save(path, config, 1, network.state_dict())
    return str(path)


# Training


@pytest.mark.parametrize("accumulate", [1, 2])
def test_stopped_and_resumed_equals_one_run_bit_for_bit(labelled, plain, tmp_path, accumulate):
    settings = labelled if accumulate == 2 else plain
    settings["optimiser"]["accumulate"] = accumulate
    run(settings, tmp_path / "whole")
    run(settings, tmp_path / "parts", stop_after=3)
    run(settings, tmp_path / "parts")
    states = [safetensors.torch.load_file(tmp_path / name / "state.safetensors") for name in ("whole", "parts")]
    assert same(*states)
    for name in ("model.safetensors", "metrics.jsonl", "samples/step_0000006.png", "config.toml"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_a_class_is_learned(labelled, tmp_path):
    """After training on flat colours, samples of a class have its colour, by name and whatever the seed."""
    labelled["optimiser"] |= {"steps": 200, "batch_size": 32, "learning_rate": 1e-2, "ema_decay": 0.9}
    labelled["unet"] |= {
        "dropout": 0.0,
        "attention": [],
        "middle_attention": False,
        "multipliers": [1],
        "image_size": 4,
    }
    labelled["log"] |= {"every": 10, "validate_every": 200}
    run(labelled, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["validation_loss"] < 0.5 < lines[1]["loss"]
    assert any(name.startswith("loss_sqrt_gamma_") for name in lines[1])
    assert load(tmp_path / "run" / "samples" / "step_0000200.png").shape == (3, 3 * 4, 8 * 4)  # a class a row
    made = generator.load(str(tmp_path / "run" / "model.safetensors"), GeneratorSampler(steps=20))
    assert (made.names, made.classes, made.size, made.name) == (("blue", "green", "red"), 3, 4, "improved_ddpm")
    labels = [made.label(name) for name in ("red", "blue", "green", "red")]
    means = made.generate([5, 6, 7, 8], labels).mean(dim=(2, 3))
    colors = torch.tensor(list(COLORS.values())) * 0.9
    assert torch.cdist(means, colors).argmin(dim=1).tolist() == labels == [2, 0, 1, 2]


def test_label_embeddings_add_to_the_level():
    sizes = {"channels": 8, "multipliers": (1,), "blocks": 1, "image_size": 8, "attention": ()}
    plain, labelled = (precondition("ddpm", UNetConfig(**sizes, classes=c)) for c in (None, 3))
    torch.nn.init.normal_(plain.unet.conv_out.weight)
    assert not any("label" in name for name in plain.state_dict())  # the names of older files
    missing = labelled.load_state_dict(plain.state_dict(), strict=False)
    assert missing.missing_keys == ["unet.embed_label.weight"]
    vectors = labelled.unet.embed_label.weight.data
    vectors[1] = 0
    y, gamma = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.9])
    assert torch.equal(labelled(y, gamma, torch.tensor([1, 1])), plain(y, gamma))
    plain.unet.embed.mlp[-1].bias.data += vectors[2]
    torch.testing.assert_close(labelled(y, gamma, torch.tensor([2, 2])), plain(y, gamma))


@pytest.mark.parametrize(
    ("recipe", "millions"),
    [("photos_16", (2.0, 2.5)), ("classes_16", (0.1, 0.3)), ("faces_64", (90, 130)), ("imagenet_64", (250, 300))],
)
def test_recipes_are_of_the_size_that_they_say(recipe, millions):
    config = from_dict(TrainConfig, read_toml(ROOT / f"configs/train/generator_{recipe}.toml"))
    with torch.device("meta"):
        count = sum(p.numel() for p in precondition(config.model, config.network).parameters())
    assert millions[0] <= count / 1e6 <= millions[1]


def test_every_embedded_photograph_has_a_class():
    config = from_dict(TrainConfig, read_toml(ROOT / "configs/train/generator_classes_16.toml"))
    folder, validation, *_ = stream.open_folders(config.data, config.target)
    named = replace(config, classes=class_names(folder, config))
    assert named.classes == ("animals", "buildings", "landscapes", "plants", "things")
    assert set(labels_of(folder, named)) == set(range(5)) and len(labels_of(validation, named)) == 6


# Labels


@pytest.mark.parametrize("in_memory", [False, True])
def test_examples_carry_the_labels_of_their_images(labelled, in_memory):
    if in_memory:
        labelled["data"] |= {"crop": 8, "in_memory": True}
    config = from_dict(TrainConfig, labelled | {"classes": ["blue", "green", "red"]})
    folder, validation, *_ = stream.open_folders(config.data, config.target)
    assert class_names(folder, config) == config.classes
    batches = list(stream.examples(folder, config, CPU, 0))
    assert len(batches) == 6 and len({int(label) for _, labels in batches for label in labels}) == 3
    strongest = torch.tensor([2, 1, 0])  # channel of blue, green, red
    for images, labels in batches:
        assert torch.equal(images.float().mean(dim=(2, 3)).argmax(dim=1), strongest[labels])
    rest = list(stream.examples(folder, config, CPU, 4))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(batches[4:], rest, strict=True))
    images, labels = stream.validation_images(validation, config.data), stream.validation_labels(validation, config)
    assert torch.equal(images.mean(dim=(2, 3)).argmax(dim=1), strongest[labels])


def test_labels_may_come_from_a_table(plain, photos, tmp_path):
    rows = ["image_id,label", *(f"{i},{'even' if i % 2 == 0 else 'odd'}" for i in range(6))]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    plain["data"] |= {"images": str(photos), "validation": str(photos), "labels": str(tmp_path / "labels.csv")}
    plain["unet"]["classes"] = 2
    run(plain, tmp_path / "run")
    carried = checkpoint.load(str(tmp_path / "run" / "model.safetensors")).config
    assert carried.classes == ("even", "odd")
    (tmp_path / "labels.csv").write_text("\n".join(rows[:-1]))
    with pytest.raises(UserError, match="labels.csv has no label for the image 5$"):
        run(plain, tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unet.classes": 4}, r"^unet.classes: 4, but \S+ has 3: blue, green, red$"),
        ({"unet.classes": 1}, "^unet: classes 1; at least 2"),
        ({"classes": ["blue", "red"]}, "^classes: 2 names, but unet.classes = 3"),
        ({"classes": ["blue", "red", "yellow"]}, "^classes: are not those of"),
        ({"task": "photos_16_64"}, '^task: only for SR3 and Regression, not for model = "improved_ddpm"'),
        ({"unet.residual_scale": 0.1}, "^unet.residual_scale: only for SR3"),
        ({"loss_norm": 1}, "^loss_norm: only for SR3"),
        ({"weighting": "output"}, "^weighting: only for SR3"),
        ({"data.crop": 16}, "^data.crop: 16 is not unet.image_size, 8"),
        ({"data.zoom_least": 2.0}, "^data.zoom_least: 2.0 is not between 1 and data.zoom_out"),
        ({"schedule.start": 1e-3}, '^schedule: spacing = "cosine" has its own ends'),
        ({"model": "sr3"}, '^missing key "task"'),
        ({"model": "sr3", "task": "photos_16_64"}, "^classes and unet.classes: go with"),
    ],
)
def test_bad_configs_are_refused_before_anything_is_written(labelled, tmp_path, change, message):
    for key, value in change.items():
        table, _, name = key.rpartition(".")
        (labelled[table] if table else labelled)[name] = value
    with pytest.raises(UserError, match=message):
        run(labelled, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_without_classes_are_refused(plain, tmp_path):
    plain["data"]["labels"] = "labels.csv"
    with pytest.raises(UserError, match="^data.labels: needs unet.classes"):
        run(plain, tmp_path / "run")


def test_images_without_a_class_are_refused(labelled, classes, tmp_path):
    images = shutil.copytree(classes, tmp_path / "images")
    labelled["data"] |= {"images": str(images)}
    shutil.copy(images / "red" / "0.png", images / "stray.png")
    with pytest.raises(UserError, match="^\\S*stray.png: is not in a class folder"):
        run(labelled, tmp_path / "run")
    (images / "stray.png").unlink()
    shutil.rmtree(images / "red")
    shutil.rmtree(images / "green")
    with pytest.raises(UserError, match="all training images are in one class, blue"):
        run(labelled, tmp_path / "run")


def test_a_validation_image_of_another_class_is_refused(labelled, classes, tmp_path):
    held = shutil.copytree(classes, tmp_path / "held")
    (held / "red").rename(held / "read")
    labelled["data"]["validation"] = str(held)
    with pytest.raises(UserError, match='class "read" is unknown: did you mean "red"'):
        run(labelled, tmp_path / "run")


# Sampling


def test_cosine_levels():
    """Nichol & Dhariwal's eq. 17, by hand, and the clipped last beta."""
    schedule = NoiseSchedule.cosine(1000)
    for t in (1, 500, 900):
        f = [math.cos((u / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for u in (0, t)]
        assert float(schedule.gammas[t - 1]) == pytest.approx(f[1] / f[0], rel=1e-9)
    assert float(schedule.alphas[-1]) == pytest.approx(0.001)


def test_one_step_starts_from_pure_noise():
    schedule = NoiseSchedule.cosine(1000)
    assert float(schedule.respaced(1).gammas[0]) == pytest.approx(float(schedule.gammas[-1]))


MEAN, DEVIATION = 0.1, 0.2


def exact_chain(gammas, variance, ddim):
    """Mean and deviation of what the exact denoiser of N(MEAN, DEVIATION^2) makes in steps of these levels.

    Every step is linear in y, so that both follow from a recursion: Ho et al. 2020, eq. 7; Song et al. 2021, eq. 12.
    """
    mean, var = 0.0, 1.0
    for g, before in zip(gammas[::-1], [*gammas[-2::-1], 1.0], strict=True):
        beta = 1 - g / before
        gain = math.sqrt(g) * DEVIATION**2 / (g * DEVIATION**2 + 1 - g)  # of E[y_0 | y] by y
        offset = MEAN - gain * math.sqrt(g) * MEAN
        if ddim:
            keep = math.sqrt((1 - before) / (1 - g))
            by_y0, by_y, added = math.sqrt(before) - keep * math.sqrt(g), keep, 0.0
        else:
            by_y0 = math.sqrt(before) * beta / (1 - g)
            by_y = math.sqrt(g / before) * (1 - before) / (1 - g)
            added = 0.0 if before == 1 else {"beta": beta, "posterior": beta * (1 - before) / (1 - g)}[variance]
        mean, var = by_y0 * (offset + gain * mean) + by_y * mean, (by_y0 * gain + by_y) ** 2 * var + added
    return mean, math.sqrt(var)


@pytest.mark.parametrize(
    "sampler",
    [
        GeneratorSampler(steps=20, clip=False),
        GeneratorSampler(steps=100, clip=False, variance="beta"),
        GeneratorSampler(steps=20, clip=False, solver="ddim"),
    ],
    ids=lambda sampler: f"{sampler.solver}_{sampler.variance}",
)
def test_the_exact_denoiser_gives_the_closed_form(sampler):
    def model(y, gamma, labels):
        g = gamma[:, None, None, None]
        return (1 - g).sqrt() * (y - g.sqrt() * MEAN) / (g * DEVIATION**2 + 1 - g)

    levels = NoiseSchedule.linear(1e-4, 0.02, 1000).respaced(sampler.steps)
    like = torch.empty(2, 3, 64, 64)
    made = 2 * generator.sample(model, like, None, [1, 2], sampler, levels, learned=False) - 1
    mean, deviation = exact_chain(levels.gammas.tolist(), sampler.variance, sampler.solver == "ddim")
    assert float(made.mean()) == pytest.approx(mean, abs=0.005)
    assert float(made.std()) == pytest.approx(deviation, rel=0.015)


@pytest.mark.parametrize("solver", ["ancestral", "ddim"])
def test_an_image_depends_on_its_seed_and_label_alone(conditional, solver):
    made = generator.load(conditional, GeneratorSampler(steps=5, solver=solver))
    together, told = made.generate([7, 8, 9], [0, 1, 2]), []
    alone = made.generate([8], [1], told.append)
    torch.testing.assert_close(alone, together[1:2], atol=1e-5, rtol=0)
    assert told == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert together.dtype == torch.float32 and together.shape == (3, 3, 8, 8)
    assert 0 <= float(together.min()) < float(together.max()) <= 1
    assert float((made.generate([8], [2]) - alone).abs().max()) > 1e-3
    assert float((made.generate([9], [1]) - alone).abs().max()) > 1e-3


def test_a_fingerprint_names_weights_and_settings(unconditional, conditional):
    made = [
        generator.load(path, GeneratorSampler(steps))
        for path, steps in ((unconditional, 5), (unconditional, 5), (unconditional, 6), (conditional, 5))
    ]
    assert len({g.fingerprint for g in made}) == 3
    assert made[0].classes is None and made[0].names == () and made[0].facts.checksums["checkpoint"]


def test_bad_input_is_one_line(unconditional, conditional, photos, tmp_path):
    plain, labelled = (generator.load(path, GeneratorSampler(2)) for path in (unconditional, conditional))
    sr3 = "sr3eval:assets/sr3_photos_16_64.safetensors"
    cases = {
        "an unconditional generator takes no labels": lambda: plain.generate([1], [0]),
        "takes no labels, so no 'red'": lambda: plain.label("red"),
        "needs labels, from 0 to 2": lambda: labelled.generate([1]),
        "label 3 is not from 0 to 2": lambda: labelled.generate([1, 2], [0, 3]),
        "label -1 is not from 0 to 2": lambda: labelled.generate([1], [-1]),
        "1 labels for 2 seeds": lambda: labelled.generate([1, 2], [0]),
        'unknown class "rad": did you mean "red"': lambda: labelled.label("rad"),
        'variance: only for solver = "ancestral"': lambda: GeneratorSampler(solver="ddim", variance="beta"),
        "0 steps; at least 1": lambda: GeneratorSampler(steps=0),
        "51 steps: must be from 1 to 50": lambda: generator.load(unconditional, GeneratorSampler(steps=51)),
        'a checkpoint of model = "sr3", which cannot generate images': lambda: generator.load(sr3),
        "a ddpm checkpoint, not sr3": lambda: checkpoint.load(unconditional, "sr3"),
        "a generator, which makes images from noise": lambda: sample_folder(
            SampleConfig(unconditional), photos, tmp_path / "out", lambda *_: None
        ),
    }
    for message, call in cases.items():
        with pytest.raises(UserError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
