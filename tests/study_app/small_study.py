"""A small pack of noise and a study made from it."""

import hashlib
import json
from pathlib import Path

from PIL import Image
from sqlalchemy import create_engine, select

from study_app import create_app
from study_app.clock import ManualClock
from study_app.models import Base
from study_app.pack import Pack
from study_app.spec import Consent, Question, Spec

MODELS = {"sr3": "sr3", "esrgan_x4": "esrgan (x4)"}
SIZE = 32


def photograph(name: str, size: int = SIZE) -> Image.Image:
    """Noise of its own for every name."""
    seed = hashlib.shake_128(name.encode())
    return Image.frombytes("RGB", (size, size), seed.digest(3 * size * size))


def write_pack(folder: Path, test: int = 8, practice: int = 2, catch: int = 4, size: int = SIZE) -> Path:
    """A pack of noise: the models' outputs are smoother than the photographs, so that their files are smaller."""
    items = []
    for kind, count in (("practice", practice), ("test", test), ("catch", catch)):
        for i in range(count):
            image_id = f"{kind}_place/{i:03}"
            hr = photograph(image_id, size)
            lr = hr.resize((size // 4, size // 4), Image.Resampling.BOX)
            pictures = {"hr": hr, "lr": lr, "sr3": lr.resize(hr.size, Image.Resampling.BICUBIC)}
            pictures["esrgan_x4"] = lr.resize(hr.size, Image.Resampling.NEAREST)
            sha256 = {}
            for slug, picture in pictures.items():
                path = folder / slug / f"{image_id}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
                sha256[slug] = hashlib.sha256(path.read_bytes()).hexdigest()
            items.append({"image_id": image_id, "kind": kind, "sha256": sha256})
    manifest = {"format": 1, "task": "photos_16_64", "seed": 0, "methods": MODELS, "items": items}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def small_spec(**changes) -> Spec:
    """8 images, 4 a subject, 6 subjects a condition: 3 views an image."""
    settings = {
        "title": "Pictures",
        "task": 2,
        "images": 8,
        "per_subject": 4,
        "target": 6,
        "practice": 2,
        "catch": 2,
        "catch_pass": 2,
        "min_viewport": (300, 240),
        "consent": Consent(contact="somebody@example.org"),
        "questions": (Question("how", "How?"), Question("what", "On what?", "choice", ("laptop", "phone"))),
    }
    return Spec(**(settings | changes))


def make_app(url: str, clock: ManualClock, **config):
    limits = {"DURABLE": False, "STARTS_PER_HOUR": None, "REQUESTS_PER_SECOND": None}
    return create_app({"DATABASE_URL": url, "SECRET_KEY": "secret", "CLOCK": clock, "TESTING": True} | limits | config)


def open_study(app, pack: Path, spec: Spec, slug: str = "study", models=("sr3", "esrgan (x4)")) -> None:
    """Create, freeze and run."""
    admin, source = app.extensions["study_admin"], Pack(pack)
    admin.create(slug, spec, list(models), source.pairs(spec, source.slugs(models)))
    admin.freeze(slug, salt="0" * 32)
    admin.move(slug, "run")


def everything(url: str) -> dict[str, list[tuple]]:
    """Every row of every table: equal before and after what must write nothing."""
    engine = create_engine(url)
    with engine.connect() as connection:
        tables = {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
        }
    engine.dispose()
    return tables
