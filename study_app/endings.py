"""How a session ends: the questions after the trials, completion codes, and stopping."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Transaction

from study_app import bodies
from study_app.languages import N_
from study_app.models import ENDED, Answer, Identity, PlanTrial, Response, Session, Stimulus, Trial
from study_app.recruitment import Exit, Outcome
from study_app.refusal import RefusedError
from study_app.sessions import Desk, check_alive, new_code, progress, required, spec_of, with_token
from study_app.spec import Spec

FAILED = "failed-"  # how the random code of a session begins that did not pass the checks
FAILED_CATCH, FAILED_COMPREHENSION = "failed_catch", "failed_comprehension"  # excluded_reasons


@dataclass(frozen=True)
class Certificate:
    """What a session is to its subject: a code to have it deleted by, and what to leave with, once it has ended."""

    subject: str
    reason: str  # why the study leaves the session out, or ""
    exit: Exit | None
    submission: str  # to `submit_to`, where the answer is handed in by a form (MTurk); else ""
    submit_to: str


class Endings(Desk):
    """From the last answer to a code."""

    def certificate(self, slug: str, token: str) -> Certificate:
        """The subject's code and, once the session has ended, what to leave with."""
        with self.database.read() as db:
            session = required(db.scalar(with_token(slug, token)))
            identity = db.get(Identity, session.participant_id)
            spec = spec_of(session.participant.study.config_toml)
            leaving = leaves_with(spec, session) if session.state in ENDED else None
            submission = (identity.submission, identity.submit_to) if identity and identity.submit_to else ("", "")
            return Certificate(session.participant.code, session.excluded_reason, leaving, *submission)

    def finish(self, slug: str, token: str, body: bodies.Finish) -> None:
        """Store the answers to the questions and give the completion code; needs every trial's answer."""
        with self.database.write() as db:
            session = required(db.scalar(with_token(slug, token, lock=True)))
            if session.state in ENDED:
                return
            check_alive(session.state)
            done, total = progress(db, session.id)
            if done < total:
                raise RefusedError(
                    "trials_missing",
                    N_("%(missing)d of %(total)d trials have no answer yet."),
                    missing=total - done,
                    total=total,
                )
            spec = spec_of(session.participant.study.config_toml)
            _check_answers(spec, body)
            db.add_all(Answer(session_id=session.id, question_id=key, text=text) for key, text in body.answers.items())
            session.state, session.finished_at, session.completion_code = "finished", self.clock(), new_code(12)
            if _catches_passed(db, session) < spec.catch_pass:
                session.excluded_reason = FAILED_CATCH
                session.completion_code = FAILED + session.completion_code
                if spec.replace_failed:
                    session.leave("excluded")

    def withdraw(self, slug: str, token: str) -> None:
        """End the session at its subject's wish: it counts no more, and its place is free."""
        with self.database.write() as db:
            session = required(db.scalar(with_token(slug, token, lock=True)))
            if session.state not in ENDED:
                check_alive(session.state)
                session.leave("withdrew")
                session.excluded_reason = "withdrew"


def leaves_with(spec: Spec, session: Session) -> Exit:
    """What a session that has ended leaves with: what its last page shows, and what pays it."""
    return spec.recruitment.exit(_outcome(session), session.completion_code or "")


def code_of(spec: Spec, session: Session) -> str:
    """The code that the subject was given, "" where there is none; of a deleted participant nothing is told."""
    is_told = session.state in ENDED and session.participant.deleted_at is None
    return leaves_with(spec, session).code if is_told else ""


def _outcome(session: Session) -> Outcome:
    if session.state == "withdrew":
        return "no_consent"
    return "failed_checks" if session.excluded_reason in (FAILED_CATCH, FAILED_COMPREHENSION) else "complete"


def _check_answers(spec: Spec, body: bodies.Finish) -> None:
    questions = {question.id: question for question in spec.questions}
    for key, text in body.answers.items():
        if key not in questions:
            raise RefusedError("bad_request", "An answer is to no question of this study.")
        if questions[key].answers and text not in questions[key].answers:
            raise RefusedError("bad_request", f'"{key}" must be one of the options.')
    for key, question in questions.items():
        if question.required and not body.answers.get(key, "").strip():
            raise RefusedError("bad_request", N_("“%(question)s” needs an answer."), question=question.text)


def _catches_passed(db: Transaction, session: Session) -> int:
    query = select(func.count()).select_from(Response).join(Response.trial).join(Trial.planned)
    query = query.join(PlanTrial.stimulus).where(Trial.session_id == session.id, Stimulus.kind == "catch")
    return db.scalar(query.where(Response.choice == PlanTrial.real_side)) or 0
