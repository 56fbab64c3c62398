"""Public judgements of pictures as downloaded, and the agreement of any metric with them.

    python -m analysis.public_judgements bapps dataset/2afc/val/superres --scores scores.csv --lower lpips

What scores (rows of per_image.csv: method, image_id, metric, value) must call a picture, by data set:

- bapps: method p0 or p1, image_id the file's stem, or SUBSET/STEM where several subsets are read;
- pipal: A0001_00_05.bmp has image_id A0001 and method 00_05;
- sriqa: online15_SeeSRx4.png has image_id online15 and method SeeSRx4.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pandas as pd

from analysis.errors import DataError
from analysis.metric_agreement import OPINIONS, VOTES, opinion_agreement, two_afc
from analysis.tables import load_results, require

BAPPS_VOTES = {"train": 2, "val": 5}  # judgements of a triplet, by the folder above the subset
LABELS = {"Positive": 1, "Similar": 0, "Negative": -1}  # of SRIQA-Bench


def bapps(subsets: Sequence[str | Path]) -> pd.DataFrame:
    """Votes of 2AFC subsets of BAPPS, folders like 2afc/val/superres, which hold judge/*.npy: the share that chose p1.

    Source: Zhang et al. 2018; layout of richzhang/PerceptualSimilarity. n is the data set's (5 in val, 2 in train)
    where the share is a multiple of 1 / n, else nan. Ties were not offered.
    """
    rows = []
    for subset in map(Path, subsets):
        files = sorted((subset / "judge").glob("*.npy"))
        if not files:
            raise DataError(f"{subset}: holds no judge/*.npy; give folders like 2afc/val/superres")
        prefix = f"{subset.name}/" if len(subsets) > 1 else ""
        votes = BAPPS_VOTES.get(subset.parent.name, 0)
        for file in files:
            share = _judged(file)
            n = votes if votes and abs(share * votes - round(share * votes)) < 1e-3 else np.nan
            rows.append((subset.name, prefix + file.stem, "p0", "p1", 1 - share, n, 0))
    return pd.DataFrame(rows, columns=list(VOTES))


def _judged(file: Path) -> float:
    try:
        judged = np.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable array ({error})") from None
    if judged.size != 1 or not 0 <= judged.item() <= 1:
        raise DataError(f"{file}: must be one number from 0 to 1")
    return float(judged.item())


def pipal(folder: str | Path) -> pd.DataFrame:
    """Opinions (Elo scores) of PIPAL's folder of labels, Train_Label or MOS_Scores_train: A0001.txt and so on.

    Lines are "A0001_00_05.bmp,1480.25". Source: Gu et al. 2020; layout of HaomingCai/PIPAL-dataset.
    """
    rows = [(*_picture(name, path), score) for path, name, score in _listed(Path(folder))]
    table = [("pipal", image, method, score) for image, method, score in rows]
    return pd.DataFrame(table, columns=list(OPINIONS))


def sriqa_opinions(folder: str | Path, of: str = "MOS") -> pd.DataFrame:
    """Opinions of SRIQA-Bench, from its folder MOS (of all), MOS_Reg or MOS_Gen, with the original pictures.

    Lines are "online15_SeeSRx4.png,64.5". Source: Chen et al. 2025; layout of ChrisDud0257/AFINE. Scores of one image
    are scaled to 0 to 100 of their own, so that only `within` of `opinion_agreement` means anything.
    """
    rows = [(*_picture(name, path), score) for path, name, score in _listed(Path(folder) / of)]
    table = [("sriqa", image, method, score) for image, method, score in rows]
    return pd.DataFrame(table, columns=list(OPINIONS))


def sriqa_votes(folder: str | Path) -> pd.DataFrame:
    """Votes of SRIQA-Bench: labels/PERSON/IMAGE/*.json, ten answers a pair, of which "similar" to both is a tie.

    The letters of PERSON are seats in which 40 people took turns, and so no subjects. The original picture is among the
    compared, as method Original: metrics with a reference call it perfect, people often do not.
    """
    files = sorted((Path(folder) / "labels").glob("*/*/*.json"))
    if not files:
        raise DataError(f"{folder}: holds no labels/PERSON/IMAGE/*.json")
    answers = pd.DataFrame([_answer(file) for file in files], columns=["image_id", "model_a", "model_b", "share_a"])
    pairs = answers.assign(ties=answers["share_a"] == 0.5).groupby(["image_id", "model_a", "model_b"])
    table = pairs.agg(share_a=("share_a", "mean"), n=("share_a", "size"), ties=("ties", "sum")).reset_index()
    return table.assign(dataset="sriqa")[list(VOTES)]


def _answer(file: Path) -> tuple[str, str, str, float]:
    """(image, method, other method, what the first got), the methods sorted."""
    try:
        shown = json.loads(file.read_text(encoding="utf-8"))
        pictures = [shown[key] for key in ("Picture_01", "Picture_02")]
        labels = [LABELS[picture["Label"]] for picture in pictures]
        (image, a), (other, b) = (_picture(picture["Name"], file) for picture in pictures)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: not an answer of SRIQA-Bench ({error!r})") from None
    if image != other:
        raise DataError(f"{file}: compares pictures of {image} and {other}")
    got = 0.5 + 0.5 * np.sign(labels[0] - labels[1])
    return (image, a, b, got) if a < b else (image, b, a, 1 - got)


def _listed(folder: Path) -> list[tuple[Path, str, float]]:
    """(file, picture, score) of every line of the folder's text files."""
    rows = []
    for path in sorted(folder.glob("*.txt")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            cells = line.replace(",", " ").split()
            if not cells:
                continue
            try:
                rows.append((path, cells[0], float(cells[-1])))
            except ValueError:
                raise DataError(f'{path}, line {number}: "{line}", must be a picture and its score') from None
    if not rows:
        raise DataError(f"{folder}: holds no *.txt with scores")
    return rows


def _picture(name: str, path: Path) -> tuple[str, str]:
    """(image, method) of a picture's file name, IMAGE_METHOD.png."""
    image, _, method = Path(name).stem.partition("_")
    if not method:
        raise DataError(f'{path}: "{name}" is not a name like IMAGE_METHOD.png')
    return image, method


def table(kind: str, folders: Sequence[Path], scores: pd.DataFrame, higher: dict[str, bool]) -> pd.DataFrame:
    """The agreement of metrics with judgements: `opinion_agreement` of pipal, else `two_afc`."""
    if kind == "bapps":
        return two_afc(bapps(folders), scores, higher)
    if len(folders) > 1:
        raise DataError(f"{kind}: needs one folder, not {len(folders)}")
    if kind == "pipal":
        return opinion_agreement(pipal(folders[0]), scores, higher)
    return two_afc(sriqa_votes(folders[0]), scores, higher)


@click.command()
@click.argument("kind", type=click.Choice(["bapps", "pipal", "sriqa"]))
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--scores", required=True, type=click.Path(path_type=Path), help="CSV: method, image_id, metric, value.")
@click.option("--results", type=click.Path(path_type=Path), help="A run's results.csv, which says what is better.")
@click.option("--higher", multiple=True, help="A metric of which higher is better; may be given several times.")
@click.option("--lower", multiple=True, help="A metric of which lower is better; may be given several times.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the table here, too, as CSV.")
def main(
    kind: str,
    folders: Sequence[Path],
    scores: Path,
    results: Path | None,
    higher: Sequence[str],
    lower: Sequence[str],
    out: Path | None,
) -> None:
    """Print how far metrics agree with public judgements, as downloaded."""
    try:
        known = {}
        if results is not None:
            known = dict(load_results(results)[["metric", "higher_is_better"]].to_numpy())
        found = table(
            kind, folders, read_scores(scores), known | dict.fromkeys(higher, True) | dict.fromkeys(lower, False)
        )
        if out is not None:
            found.to_csv(out, index=False)
    except (DataError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(found.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


def read_scores(path: Path) -> pd.DataFrame:
    """Scores of public pictures: a per_image.csv, or a CSV with no more than method, image_id, metric and value."""
    text = {"method": str, "image_id": str, "metric": str, "dataset": str}
    try:
        scores = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"value": ["", "nan"]})
        require(scores, ("method", "image_id", "metric", "value"), str(path))
        return scores.assign(value=pd.to_numeric(scores["value"]))
    except ValueError as error:
        raise DataError(f"{path}: {str(error).splitlines()[0]}") from None


if __name__ == "__main__":
    main()
