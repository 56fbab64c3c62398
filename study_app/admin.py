"""What the researcher does with a study: create, freeze, run, pause, close, delete a participant."""

import datetime
import secrets
from collections.abc import Iterable, Sequence

from sqlalchemy import delete, insert, or_, select
from sqlalchemy.orm import Session as Transaction

from sr3eval.config import to_toml
from sr3eval.errors import UserError, nearest
from study_app import deletion, recruitment
from study_app.allocation import Planned, plan
from study_app.clock import Clock, system_clock
from study_app.database import Database
from study_app.models import (
    EXPIRED,
    Audit,
    Condition,
    Identity,
    Participant,
    PlanSlot,
    PlanTrial,
    Revocation,
    Session,
    Stimulus,
    Study,
)
from study_app.pack import Pair
from study_app.recruitment import INVITATION, invitation
from study_app.sessions import spec_of
from study_app.signing import Keys
from study_app.spec import SLUG, Matchup, Spec
from study_app.tally import Tally, tallies

# By verb, the states that it leads from and the one that it leads to.
MOVES = {
    "run": (("frozen", "paused"), "running"),
    "pause": (("running",), "paused"),
    "close": (("frozen", "running", "paused"), "closed"),
}
DELETABLE = ("draft", "closed")
RESERVED = ("log", "login", "logout")  # pages of /admin, where each study has one of its own


class Admin:
    """The researcher's verbs. They raise UserError, and then nothing has changed. `actor`: who the audit log names."""

    def __init__(self, database: Database, clock: Clock = system_clock, actor: str = "command line") -> None:
        self.database, self.clock, self.actor = database, clock, actor

    def log(self, db: Transaction, action: str, study: str = "", detail: str = "") -> None:
        """Add to the audit log, within the transaction of what was done."""
        db.add(Audit(at=self.clock(), actor=self.actor, action=action, study=study, detail=detail))

    def note(self, action: str, study: str = "", detail: str = "") -> None:
        """Add to the audit log what changed nothing in the database."""
        with self.database.write() as db:
            self.log(db, action, study, detail)

    def create(self, slug: str, spec: Spec, models: Sequence[str], pairs: Iterable[Pair]) -> None:
        """Make a draft from pictures, in place of a draft of the same name. A frozen study is never changed."""
        if not SLUG.fullmatch(slug):
            raise UserError(f'"{slug}" cannot be in an address; use lower-case letters, digits, - and _')
        if slug in RESERVED:
            raise UserError(f'"{slug}" is the name of a page under /admin; choose another --slug')
        spec.check_models(models)
        rows = [_row(spec, pair) for pair in pairs]
        with self.database.write() as db:
            old = db.scalar(select(Study).where(Study.slug == slug))
            if old is not None and old.state != "draft":
                raise UserError(f'study "{slug}" is {old.state}: what it shows cannot change; choose another --slug')
            db.execute(delete(Study).where(Study.slug == slug))
            study = Study(
                slug=slug,
                state="draft",
                config_toml=to_toml(spec),
                config_sha256=spec.sha256,
                models="\n".join(models),
                created_at=self.clock(),
            )
            study.conditions = _conditions(spec, models)
            db.add(study)
            db.flush()
            for row in rows:
                db.execute(insert(Stimulus), [{"study_id": study.id, **row}])
            self.log(db, "create", slug, f"sha256 {spec.sha256}")

    def freeze(self, slug: str, salt: str | None = None) -> None:
        """Lay down who sees what: from here on the study is what it is.

        salt: what the plan is drawn by, beside the study's own settings; 128 secret bits, but in simulations.

        Raises:
            UserError: the study is no draft, or the salt is longer than 32 characters.
        """
        if salt is not None and len(salt) > 32:
            raise UserError(f"a salt has at most 32 characters, not {len(salt)}")
        with self.database.write() as db:
            study = the_study(db, slug, lock=True)
            if study.state != "draft":
                raise UserError(f'study "{slug}" is {study.state}: only a draft can be frozen')
            columns = (Stimulus.kind, Stimulus.number, Stimulus.model, Stimulus.rival, Stimulus.id)
            stimuli = db.execute(select(*columns).where(Stimulus.study_id == study.id)).all()
            ids = {(kind, number, Matchup(*shown)): id_ for kind, number, *shown, id_ in stimuli}
            study.salt = secrets.token_hex(16) if salt is None else salt
            for condition in study.conditions:
                _lay_down(db, study, condition, ids)
            study.state, study.frozen_at = "frozen", self.clock()
            self.log(db, "freeze", slug, "" if salt is None else "by a given salt: a simulation")

    def move(self, slug: str, verb: str) -> None:
        """`run`, `pause` or `close`: open or shut the door. Who is inside may finish."""
        sources, target = MOVES[verb]
        with self.database.write() as db:
            study = the_study(db, slug, lock=True)
            if study.state not in sources:
                remedy = "; freeze it first" if study.state == "draft" else ""
                raise UserError(f'study "{slug}" is {study.state}: cannot {verb} it{remedy}')
            study.state = target
            self.log(db, verb, slug)

    def counts(self, slug: str | None = None) -> list[Tally]:
        """Every condition, of one study or of all."""
        with self.database.read() as db:
            return tallies(db, self.clock(), None if slug is None else the_study(db, slug))

    def reopen(self, slug: str, codes: Sequence[str], reason: str = "researcher") -> int:
        """Leave finished sessions out and give their places to others; returns how many.

        Named by subject or completion code; without codes, those that failed the catch trials and still hold a place.
        A closed study is paused then, so that it can run again.
        """
        with self.database.write() as db:
            study = the_study(db, slug, lock=True)
            chosen = [_finished(db, study, code) for code in codes] if codes else _failed(db, study)
            for session in chosen:
                session.leave("excluded")
                session.excluded_reason = session.excluded_reason or reason
            if chosen and study.state == "closed":
                study.state = "paused"
            self.log(db, "reopen", slug, f"{len(chosen)} places: {reason}")
            return len(chosen)

    def invite(
        self, slug: str, count: int, url: str, keys: Keys, until: datetime.date | None = None
    ) -> list[tuple[str, str]]:
        """New people's random names, each with the link that lets one take part once.

        until: the last day, UTC, on which it lets somebody begin.
        """
        with self.database.write() as db:
            _for_invited(the_study(db, slug))
            self.log(db, "invite", slug, f"{count} links" + (f" until {until}" if until else ""))
        made = (invitation(slug, keys, until) for _ in range(count))
        return [(person, f"{url}/s/{slug}?{INVITATION}={proof}") for person, proof in made]

    def revoke(self, slug: str, people: Iterable[str], keys: Keys) -> int:
        """Let the links of these people, by their random names, begin nothing any more; returns how many there are.

        Raises UserError, and then none is revoked, for a name that no invitation has, and for people who have begun.
        """
        with self.database.write() as db:
            study = the_study(db, slug, lock=True)
            _for_invited(study)
            people = set(people)
            for person in people:
                if not recruitment.INVITED.fullmatch(person):
                    raise UserError(f'"{person}" is not a `person` of a table of links')
                hashes = recruitment.Identity("invited", person).hashes(keys)
                known = select(Participant.id).where(Participant.study_id == study.id)
                if db.scalar(known.where(Participant.identity_hash.in_(hashes))) is not None:
                    raise UserError(f'"{person}" has already begun; `study delete-participant` deletes by subject code')
                revoked = select(Revocation.id).where(Revocation.study_id == study.id)
                if db.scalar(revoked.where(Revocation.identity_hash.in_(hashes))) is None:
                    db.add(Revocation(study_id=study.id, identity_hash=hashes[0], at=self.clock()))
            self.log(db, "revoke", slug, f"{len(people)} links")
            return len(people)

    def forget_identities(self, slug: str) -> int:
        """Delete what services and invitations call the study's participants; returns how many were known.

        Nobody can be paid by it afterwards, but whoever took part is still known by a keyed hash.
        """
        with self.database.write() as db:
            whose = select(Participant.id).where(Participant.study_id == the_study(db, slug).id)
            forgotten = delete(Identity).where(Identity.participant_id.in_(whose)).returning(Identity.source)
            count = len(db.execute(forgotten).all())
            self.log(db, "forget identities", slug, str(count))
        self.database.purge()
        return count

    def config(self, slug: str) -> str:
        """The study's settings as TOML, with their hash and models."""
        with self.database.read() as db:
            study = the_study(db, slug)
            models = ", ".join(study.models.split("\n"))
            return f"# study {slug}, models: {models}\n# sha256 {study.config_sha256}\n{study.config_toml}"

    def delete_participant(self, code: str, slug: str | None = None) -> bool:
        """Delete what identifies a participant, named by subject or completion code, and what the study says besides.

        With `deletion = "delete_answers"` the responses go too and the place is free again; returns whether. What stays
        is a row with the subject's code, the consent, the times and the state of the session, and the time of the
        deletion. slug: the study that it must be a participant of. Raises UserError while somebody reads for long: it
        can be tried again then.
        """
        self.database.purge()  # before anything is changed; and what is left of a deletion that could not
        with self.database.write() as db:
            named = or_(Participant.code == code, Session.completion_code == code)
            query = select(Session).join(Session.participant).join(Participant.study).where(named)
            query = query.with_for_update(of=Session)  # so that no answer comes in between
            session = db.scalar(query if slug is None else query.where(Study.slug == slug))
            if session is None or session.participant.deleted_at is not None:
                raise UserError(f'no participant "{code}" (or deleted already)')
            deletion.forget(db, session)
            erases = spec_of(session.participant.study.config_toml).deletion == "delete_answers"
            if erases:
                deletion.erase(db, session)
                session.leave("deleted")
            elif session.state == "active":
                session.leave(EXPIRED)
                session.excluded_reason = EXPIRED
            session.participant.deleted_at = self.clock()
            self.log(db, "delete participant", session.participant.study.slug, session.participant.code)
        self.database.purge()
        return erases

    def delete_study(self, slug: str, typed: str) -> None:
        """Delete a study that is closed, or a draft: pictures, places, people and answers. Lines of the log stay.

        typed: the study's name, as somebody wrote it who means it. Raises UserError while somebody reads for long, as
        `delete_participant` does.
        """
        if typed != slug:
            raise UserError(f'"{typed}" is not the study\'s name, "{slug}": nothing is deleted')
        self.database.purge()
        with self.database.write() as db:
            study = the_study(db, slug, lock=True)
            if study.state not in DELETABLE:
                raise UserError(f'study "{slug}" is {study.state}: close it first')
            deletion.delete_study(db, study)
            self.log(db, "delete study", slug)
        self.database.purge()


def the_study(db: Transaction, slug: str, lock: bool = False) -> Study:
    """The study of this name, held until the transaction ends if so, or UserError with the nearest name."""
    query = select(Study).where(Study.slug == slug)
    study = db.scalar(query.with_for_update() if lock else query)
    if study is None:
        raise UserError(f'no study "{slug}": {nearest(slug, db.scalars(select(Study.slug)))}')
    return study


def _for_invited(study: Study) -> None:
    source = spec_of(study.config_toml).recruitment.source
    if source != "invited":
        raise UserError(
            f'study "{study.slug}" is for source = "{source}"; links are for recruitment.source = "invited"'
        )


def _finished(db: Transaction, study: Study, code: str) -> Session:
    query = select(Session).join(Session.participant).where(Participant.study_id == study.id)
    query = query.where(or_(Participant.code == code, Session.completion_code == code))
    session = db.scalar(query)
    if session is None or session.state != "finished":
        found = "no such participant" if session is None else f"the session is {session.state}"
        raise UserError(f'"{code}": {found}; only places of finished sessions can be reopened')
    return session


def _failed(db: Transaction, study: Study) -> Sequence[Session]:
    query = select(Session).join(Session.participant).where(Participant.study_id == study.id)
    return db.scalars(query.where(Session.state == "finished", Session.excluded_reason != "")).all()


def _row(spec: Spec, pair: Pair) -> dict[str, object]:
    spec.check_size(pair.width, pair.height)
    return {
        "kind": pair.kind,
        "number": pair.number,
        "model": pair.model,
        "image_id": pair.image_id,
        "group": pair.group,
        "rival": pair.rival,
        "width": pair.width,
        "height": pair.height,
        "real_png": pair.real,
        "other_png": pair.other,
        "middle_png": pair.middle,
    }


def _conditions(spec: Spec, models: Sequence[str]) -> list[Condition]:
    """One for each model and viewing time, or for each viewing time; the time is named where there are several."""
    shown = spec.matchups(models) if spec.mode == "between" else [Matchup("")]
    several = len(spec.exposures_ms) > 1
    return [
        Condition(label=_label(spec, of) + (f" {ms / 1000:g} s" if several else ""), **of._asdict(), exposure_ms=ms)
        for of in shown
        for ms in spec.exposures_ms
    ]


def _label(spec: Spec, shown: Matchup) -> str:
    return f"{shown.model} or {shown.rival}" if shown.model and spec.compare == "models" else shown.model or "all"


def _lay_down(db: Transaction, study: Study, condition: Condition, ids: dict[tuple[str, int, Matchup], int]) -> None:
    spec = spec_of(study.config_toml)
    one = Matchup(condition.model, condition.rival)
    matchups = [one] if one.model else spec.matchups(study.models.split("\n"))
    for number, trials in enumerate(plan(spec, condition.label, len(matchups), study.salt)):
        slot = PlanSlot(condition_id=condition.id, number=number)
        db.add(slot)
        db.flush()
        rows = [
            {
                "slot_id": slot.id,
                "idx": idx,
                "stimulus_id": ids[trial.kind, trial.number, _shown(trial, matchups)],
                "real_side": trial.real_side,
            }
            for idx, trial in enumerate(trials)
        ]
        db.execute(insert(PlanTrial), rows)


def _shown(trial: Planned, matchups: Sequence[Matchup]) -> Matchup:
    return Matchup("") if trial.kind == "catch" else matchups[trial.model]
