"""The paper's tables and figures: every item's commands, in small, on embedded data; and what they need."""

import re
import shlex
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner

from analysis import simulation
from benchmark import main
from sr3eval import cli, methods, metrics, paper
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.published import paper_values
from sr3eval.config import check_call, from_dict, kind_of, read_toml
from sr3eval.diffusion.cascade_folder import CascadeConfig
from sr3eval.diffusion.costs import untrained_parameters
from sr3eval.diffusion.search_config import SearchConfig
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.errors import UserError
from study_app.commands import study

ROOT = Path(__file__).parents[2]
SMOKE = Path("runs/paper/smoke")
PROGRAMS = {"benchmark.py": main, "sr3eval": cli.main, "analysis.simulation": simulation.main, "study": study}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with the repository's configs."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of all items in small, and what their commands said, by command."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "configs").symlink_to(ROOT / "configs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(main, ["paper", *paper.items(), "--smoke"])
    assert result.exit_code == 0, (result.output, result.exception)
    said = re.split(r"^\$ (.+)\n", result.output, flags=re.M)[1:]
    return folder / SMOKE, dict(zip(said[::2], said[1::2], strict=True))


def test_tables_say_what_the_paper_printed(made):
    folder, said = made
    for name in ("table_2", "table_3", "table_4", "table_5", "table_6", "figure_9", "figure_10"):
        results = pd.read_csv(
            folder / name / "compared" / "results.csv", keep_default_na=False, na_values={"value": ""}
        )
        ours = results[results["source"] == ""].set_index(["method", "metric"])["value"]
        theirs = results[results["source"] != ""]
        printed = [line for line in paper_values(name) if line["metric"] in set(results["metric"])]
        assert len(theirs) == len(printed), name
        for row, line in zip(theirs.itertuples(), printed, strict=True):
            assert (row.method, row.metric) == (line["method"], line["metric"])
            assert row.source.startswith(line["source"]) and "of other images" in row.source
            assert line["value"] == "" if pd.isna(row.value) else row.value == float(line["value"])
            if row.difference != "":
                assert float(row.difference) == pytest.approx(ours[row.method, row.metric] - row.value)
    (networks,) = [text for command, text in said.items() if "networks" in command]
    assert "| 64x64 -> 256x256     | 128      | 1, 2, 4, 4, 8, 8           | 3      | 633.5          | 625 " in networks
    (fooled,) = [text for command, text in said.items() if "paper:figure_9" in command]
    assert re.search(r"\| \*SR3\* \(SR3, Fig\. 9, 3 s; medium confidence; of other .*\| 54\.1 \([+-]\d", fooled)


def test_every_figure_is_drawn(made):
    folder, _ = made
    figures = [name for name in paper.items() if name.startswith("figure")]
    assert [(folder / f"{name}.pdf").read_bytes()[:4] for name in figures] == [b"%PDF"] * len(figures)


def test_the_index_names_every_item_config_and_option(here):
    items = paper.items()
    assert list(items) == [f"table_{i}" for i in range(1, 7)] + [f"figure_{i}" for i in (1, *range(4, 15))]
    commands = [c for item in items.values() for c in (*item.commands, *item.smoke, *item.people, *item.after)]
    named = {word for command in commands for word in shlex.split(command) if word.endswith(".toml")}
    assert named == {str(p) for p in Path("configs/paper").rglob("*.toml") if p.name != "index.toml"} | {
        "configs/cascade/imagenet_256.toml",
        "configs/search/imagenet_64_256.toml",
    }
    for line in commands:
        words = shlex.split(line)
        program = next(word for word in words if word in PROGRAMS)
        command, given = PROGRAMS[program], words[words.index(program) + 1 :]
        while isinstance(command, click.Group):
            command, *given = command.commands[given[0]], *given[1:]
        command.make_parser(click.Context(command)).parse_args(list(given))  # raises for an unknown option


def test_every_config_is_read(here):
    """With its kinds of methods and metrics and their options; files that it names may be missing."""
    classes = {"run": RunConfig.parse, "cascade": lambda data: from_dict(CascadeConfig, data)}
    assert set(from_dict(SearchConfig, read_toml(Path("configs/search/imagenet_64_256.toml"))).budgets) == {
        method.options["steps"] for method in RunConfig.parse(read_toml(Path("configs/paper/figure_12.toml"))).method
    }
    for path in Path("configs/paper").rglob("*.toml"):
        if path.stem not in ("index", "table_1"):
            data = read_toml(path)
            config = classes[kind_of(data)](data)
            for method in config.method if kind_of(data) == "run" else ():
                builder = methods.builder(method.kind)
                given = methods.of_run(builder, config.task, with_path=bool(method.path))
                check_call(builder, method.options, path.name, given)
            for name, options in config.metrics if kind_of(data) == "run" else ():
                check_call(metrics.builder(name), options, path.name)


def test_the_page_has_every_item(here):
    page = (ROOT / "docs" / "paper.md").read_text()
    for name, item in paper.items().items():
        assert f"| {item.title} | `python benchmark.py paper {name}` |" in page


def test_every_training_has_a_recipe():
    wanted = {
        name
        for path in (ROOT / "configs" / "paper").glob("*.toml")
        for name in re.findall(r"runs/train/([a-z0-9_]+)/", path.read_text())
    }
    assert len(wanted) > 8
    recipes = {path.stem: path for path in (ROOT / "configs" / "train").rglob("*.toml")}
    assert wanted <= set(recipes)
    for name in ("sr3_faces_64_512", "sr3_imagenet_16_128"):  # of which no other test reads more than the name
        config = from_dict(TrainConfig, read_toml(recipes[name])).resolved()
        assert name == f"{config.model}_{config.task}" and config.data.images.startswith("data/")
    assert untrained_parameters(config) == pytest.approx(575e6, rel=0.01)  # the network of the faces


def test_what_is_missing_is_named_with_its_remedy(here):
    cascade = "sr3eval cascade configs/paper/smoke/cascade.toml --out generated/a"
    score = "python benchmark.py run configs/paper/smoke/table_5.toml --out runs/a"
    assert paper.lacking(paper.Item("", (cascade,), ())) == []
    absent = "runs/train/sr3_faces_64_256/model.safetensors"
    (text,) = paper.lacking(paper.Item("", (f"{cascade} --set stage.checkpoint={absent}",), ()))
    assert text.startswith(f"{absent}: cannot be read") and text.endswith("configs/train/sr3_faces_64_256.toml")
    made_by_itself = cascade.replace("generated/a", "runs/paper/smoke/cascade")
    assert paper.lacking(paper.Item("", (made_by_itself, score), ())) == []
    (text,) = paper.lacking(paper.Item("", (cascade, score), ()))
    assert text == "runs/paper/smoke/cascade/images: no such folder"
    statistics = "python benchmark.py statistics data/none --task photos_16_64 --out data/none.npz"
    assert paper.lacking(paper.Item("", (statistics,), ())) == ["data/none: no such folder"]
    (here / "data").mkdir()
    (here / "data" / "none.npz").touch()
    assert paper.lacking(paper.Item("", (statistics,), ())) == []


def test_simulated_answers_need_rates(here):
    """Of numbers between 0 and 1, and scores of a run, or one line says what is wrong."""
    Path("scores.csv").write_text("task,method,image_id,metric,value\nt,SR3,a,psnr,1\nt,SR3,b,psnr,1\n")
    for rate in ("SR3=half", "SR3=2", "SR3", "=0.5"):
        given = ["--rate", rate, "--scores", "scores.csv", "--subjects", "3", "--out", "responses.csv"]
        result = CliRunner().invoke(simulation.main, given)
        assert result.exit_code == 1 and result.output.startswith("Error: "), (rate, result.output, result.exception)
    assert not Path("responses.csv").exists()


def test_a_study_waits_for_its_answers(here):
    """Its pictures, then what the host does, then, with the answers, table and figure; the pack stays as it is."""
    ran = []

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("given", nargs=-1, type=click.UNPROCESSED)
    def program(given):
        ran.append(given[0])

    programs = dict.fromkeys(PROGRAMS, program)
    told = list(paper.make(["figure_9"], False, programs))
    assert ran == ["run", "stimuli"]
    assert told[-1].startswith("Then run this again: it takes runs/paper/figure_9/responses_task1_faces.csv and ")
    assert sum("study freeze task" in line for line in told) == 2
    (here / "runs" / "paper" / "figure_9" / "pack").mkdir(parents=True)
    for path in paper.items()["figure_9"].answers:
        path.touch()
    ran.clear()
    list(paper.make(["figure_9"], False, programs))
    assert ran == ["run", "table", "figure"]
    with pytest.raises(UserError, match='the paper has no "figure_2": did you mean "figure_'):
        next(paper.make(["figure_2"], True, programs))


def test_an_interrupted_command_is_the_last(here):
    ran = []

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("given", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def program(ctx, given):
        ran.append(given[0])
        ctx.exit(130)

    with pytest.raises(click.exceptions.Exit) as ended:
        list(paper.make(["table_2"], False, dict.fromkeys(PROGRAMS, program)))
    assert ended.value.exit_code == 130 and ran == ["run"]


def test_outside_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["paper"])
    assert result.exit_code == 1 and "run this in the folder of the repository" in result.output
