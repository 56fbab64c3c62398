"""The researcher's preview: a study as its subjects meet it, on a copy in a scratch database that nothing else reads.

A copy has the study's settings and places of its own; pictures come from the study itself. So drafts can be looked at,
and neither places nor progress, exports and payments of the study know of it.
"""

import math
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.orm import Session as Transaction

from study_app import statements
from study_app.admin import Admin, the_study
from study_app.clock import Clock
from study_app.database import Database
from study_app.deletion import delete_study
from study_app.models import Stimulus, Study
from study_app.pack import Pair
from study_app.refusal import RefusedError
from study_app.service import Service
from study_app.sessions import find_study, spec_of
from study_app.signing import Keys
from study_app.spec import Spec

# What a Pair begins with.
SHOWN = (Stimulus.image_id, Stimulus.kind, Stimulus.number, Stimulus.model, Stimulus.width, Stimulus.height)
PLACES = 12  # at least that a condition's copy has; when all are taken there is another copy


class Preview(Service):
    """What Service is, of copies; `source` has the studies. The copies' file is in the machine's temporary folder."""

    def __init__(self, source: Database, clock: Clock, keys: Keys) -> None:
        name = keys.hash("preview", str(source.url))[:16]  # that nobody can have made before us
        self.folder = Path(tempfile.gettempdir()) / f"study-preview-{name}"
        super().__init__(Database(f"sqlite:///{self.folder / 'preview.sqlite'}", durable=False), clock, keys)
        self.source = source

    def open(self, slug: str) -> None:
        """See to it that there is a copy of the study as it is now, with a free place."""
        with self.source.read() as db:
            study = find_study(db, slug)
            models, made_at = study.models.split("\n"), study.created_at
            spec = for_preview(spec_of(study.config_toml), models)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with self.database.read() as db:
            copy = db.scalar(select(Study).where(Study.slug == slug))
            is_current = copy is not None and copy.config_sha256 == spec.sha256 and copy.created_at >= made_at
        if not (is_current and self.has_place(slug)):
            self._copy(slug, spec, models)

    def remove(self) -> None:
        """Delete all copies with their file. For when no server runs any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def forget(self, slug: str) -> None:
        """Delete the copy of a study, if there is one."""
        if self.folder.exists():
            with self.database.write() as db:
                _drop(db, slug)
            self.database.purge()

    def _copy(self, slug: str, spec: Spec, models: Sequence[str]) -> None:
        """Make a copy under another name; then it takes the name, and who has the old copy open begins anew."""
        with self.source.read() as db:
            shown = select(*SHOWN, Stimulus.group, Stimulus.rival).where(Stimulus.study_id == the_study(db, slug).id)
            pairs = [Pair(*row[:6], b"", b"", None, *row[6:]) for row in db.execute(shown)]
        admin, new = Admin(self.database, self.clock), f"new-{secrets.token_hex(8)}"
        admin.create(new, spec, models, pairs)
        admin.freeze(new)
        admin.move(new, "run")
        with self.database.write() as db:
            _drop(db, slug)
            db.execute(update(Study).where(Study.slug == new).values(slug=slug))

    def _file(self, stimulus: int, name: str) -> bytes:
        with self.database.read() as db:
            named = select(Stimulus.model, Stimulus.rival, Stimulus.image_id, Study.slug).join(Study)
            model, rival, image_id, slug = db.execute(named.where(Stimulus.id == stimulus)).one()
        with self.source.read() as db:
            same = (Stimulus.model == model, Stimulus.rival == rival, Stimulus.image_id == image_id)
            found = db.scalar(select(Stimulus.id).join(Study).where(Study.slug == slug, *same))
            png = db.scalar(statements.FILE[name], {"stimulus": found})
        if png is None:
            raise RefusedError("not_found", "There is no such picture.")
        return png


def for_preview(spec: Spec, models: Sequence[str]) -> Spec:
    """The same study, of as few subjects as can be shown it in exact balance, PLACES at least."""
    shared = len(spec.matchups(models)) if spec.mode == "within" else 1
    fewest = next(n for n in range(1, spec.target + 1) if n * spec.per_subject % (spec.images * shared) == 0)
    return replace(spec, target=fewest * math.ceil(PLACES / fewest), adaptive=False)


def _drop(db: Transaction, slug: str) -> None:
    copy = db.scalar(select(Study).where(Study.slug == slug))
    if copy is not None:
        delete_study(db, copy)
