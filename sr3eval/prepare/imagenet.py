"""ImageNet (ILSVRC 2012): 1,281,167 training images of 1,000 synsets, 50,000 for validation.

`ILSVRC2012_img_train.tar` holds a tar file a synset (n01440764.tar), these the images (n01440764_18.JPEG);
`ILSVRC2012_img_val.tar` holds ILSVRC2012_val_00000001.JPEG to ..._00050000.JPEG, whose synsets are elsewhere: in
`ILSVRC2012_devkit_t12.tar.gz`, in a file with a synset a line (imagenet_2012_validation_synset_labels.txt of
github.com/tensorflow/models), or in Kaggle's LOC_val_solution.csv. Extracted, the images lie in a folder a synset.
Layouts and md5 sums: torchvision, datasets/imagenet.py. 22 training images are CMYK JPEGs
(github.com/cytsai/ilsvrc-cmyk-image-list), which become RGB.
"""

import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import scipy.io

from sr3eval.config import resolve_path
from sr3eval.errors import UserError
from sr3eval.files import File
from sr3eval.folders import by_id, find_images
from sr3eval.prepare import Tell
from sr3eval.prepare.listing import Item, Listing
from sr3eval.shards import Member, key_of, tar_files, tar_members

PUBLISHED = {"training": {"all": 1_281_167}, "validation": {"all": 50_000}}
MD5 = {
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
}
SYNSET = re.compile(r"n\d{8}")
IN_SYNSET = re.compile(r"n\d{8}/")
VALIDATION = re.compile(r"ILSVRC2012_val_\d{8}")
MEGABYTE = 10**6
DEVKIT = "ILSVRC2012_devkit_t12/data"


def find(source: Path, labels: str | None = None, tell: Tell = lambda *_: None) -> Listing:
    """The images of a tar file as published, of a folder of synsets or of their tar files, or of validation images.

    Ids are "n01440764/n01440764_18", as in folders. labels: what tells the synsets of validation images. tell:
    is told how much of a tar file has been listed, whose million headers may take minutes. Raises UserError for labels
    where the layout has them, for missing ones, and for a source of another layout.
    """
    files = by_id(source, _files(source, tell))
    if not files:
        raise UserError(f"{source}: no images in it")
    unlabelled = [name for name in files if not IN_SYNSET.match(name)]
    if unlabelled:
        files = _labelled(files, unlabelled, source, labels)
    elif labels is not None:
        raise UserError(f"--labels: the images of {source} are already in folders of synsets; leave it out")
    items = [Item(name, file, name.partition("/")[0]) for name, file in sorted(files.items())]
    held = bool(VALIDATION.search(items[0].image_id))
    classes = tuple(sorted({item.label for item in items if item.label}))
    archives = {source: MD5[source.name]} if source.name in MD5 else {}
    return Listing(items, classes, PUBLISHED["validation" if held else "training"], archives=archives)


def _files(source: Path, tell: Tell) -> Iterator[tuple[str, File]]:
    """(id, file) of the images of a source."""
    if source.is_file():
        yield from _in_tar(source, tell)
    elif any(SYNSET.fullmatch(path.stem) for path in tar_files(source)):
        for path in tar_files(source):
            yield from _of_synset(path.stem, path)
    else:
        yield from find_images(source).items()


def _in_tar(path: Path, tell: Tell) -> Iterator[tuple[str, File]]:
    for member in tar_members(path):
        tell("list, MB", member.offset / MEGABYTE, path.stat().st_size // MEGABYTE)
        name, suffix = key_of(member.path)
        if suffix == ".tar":
            yield from _of_synset(name, path, member.offset)
        elif suffix in (".jpeg", ".jpg"):
            yield name, member


def _of_synset(synset: str, path: Path, start: int = 0) -> Iterator[tuple[str, Member]]:
    for member in tar_members(path, start):
        yield f"{synset}/{key_of(member.name)[0]}", member


def _labelled(files: Mapping[str, File], names: Sequence[str], source: Path, labels: str | None) -> dict[str, File]:
    """Validation images by ids that begin with their synsets."""
    if not all(VALIDATION.search(name) for name in names):
        other = next(name for name in names if not VALIDATION.search(name))
        raise UserError(f"{source}: {other} is neither in a synset (n01440764) nor named ILSVRC2012_val_00000001")
    if labels is None:
        raise UserError(
            f"{source}: the synsets of validation images are not in their names: give --labels "
            "ILSVRC2012_devkit_t12.tar.gz, a file with one synset per line, or LOC_val_solution.csv"
        )
    plain = {name.rpartition("/")[2]: file for name, file in files.items()}
    synsets = _synsets(resolve_path(labels), sorted(plain))
    if missing := [name for name in plain if name not in synsets]:
        raise UserError(f"--labels: {labels} has no entry for {missing[0]}")
    return {f"{synsets[name]}/{name}": file for name, file in plain.items()}


def _synsets(path: Path, names: Sequence[str]) -> dict[str, str]:
    """{name of a validation image: synset}."""
    try:
        listed = _of_devkit(path) if path.name.endswith((".gz", ".tar")) else path.read_text("utf-8").splitlines()
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise UserError(f"--labels: {path}: cannot be read ({error})") from None
    found: dict[str, str] = {}
    for number, line in enumerate(filter(None, listed), start=1):
        name, synset = VALIDATION.search(line), SYNSET.search(line)
        if synset:
            found[name[0] if name else f"ILSVRC2012_val_{number:08}"] = synset[0]
        elif found or "ImageId" not in line:
            raise UserError(f'--labels: {path}: "{line[:40]}" names no synset (n01440764)')
    return found


def _of_devkit(path: Path) -> list[str]:
    """The synset of every validation image, in order: numbers of the ground truth, looked up in meta.mat."""
    with tarfile.open(path) as archive:
        meta, truth = (_read(archive, name) for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"))
    table = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    synsets = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table}
    return [synsets[int(number)] for number in truth.split()]


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(f"{DEVKIT}/{name}")
    assert file is not None
    return file.read()
