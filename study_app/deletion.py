"""What is deleted of a participant, and of a study. `Database.purge`, after the transaction, leaves no byte of it."""

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session as Transaction

from study_app.models import (
    SCREEN,
    Answer,
    Condition,
    Event,
    FurtherChoice,
    Identity,
    Participant,
    PlanSlot,
    PlanTrial,
    Response,
    Session,
    Stimulus,
    Study,
    Trial,
)
from study_app.sessions import new_code


def forget(db: Transaction, session: Session) -> None:
    """What could identify a person: who it is, token, device, free text, events."""
    db.execute(delete(Identity).where(Identity.participant_id == session.participant_id))
    session.participant.identity_hash = None
    for table in (Answer, Event):
        db.execute(delete(table).where(table.session_id == session.id))
    session.token_sha256 = session.viewport_w = session.viewport_h = None
    session.dpr = session.frame_ms = session.touch = session.px_per_mm = None
    blank = {"body_sha256": "", **dict.fromkeys(SCREEN)}  # the hash, since the rest could be guessed until it fits
    db.execute(update(Response).where(Response.trial_id.in_(_trials(session))).values(blank))
    if session.completion_code:  # what was handed in tells who it was
        session.completion_code = new_code(12)


def erase(db: Transaction, session: Session) -> None:
    """The answers to the trials."""
    db.execute(delete(Response).where(Response.trial_id.in_(_trials(session))))
    db.execute(delete(Trial).where(Trial.session_id == session.id))


def _trials(session: Session) -> Select[int]:
    return select(Trial.id).where(Trial.session_id == session.id)


def delete_study(db: Transaction, study: Study) -> None:
    """All of it; who is in the middle of an answer is waited for, and then has no session."""
    people = select(Participant.id).where(Participant.study_id == study.id)
    db.execute(select(Session.id).where(Session.participant_id.in_(people)).with_for_update())
    sessions = select(Session.id).where(Session.participant_id.in_(people))
    trials = select(Trial.id).where(Trial.session_id.in_(sessions))
    responses = select(Response.id).where(Response.trial_id.in_(trials))
    slots = select(PlanSlot.id).join(PlanSlot.condition).where(Condition.study_id == study.id)
    for table, of in (
        *((FurtherChoice, FurtherChoice.response_id.in_(responses)), (Response, Response.trial_id.in_(trials))),
        *((table, table.session_id.in_(sessions)) for table in (Trial, Answer, Event)),
        *((Session, Session.participant_id.in_(people)), (Identity, Identity.participant_id.in_(people))),
        *((Participant, Participant.study_id == study.id), (PlanTrial, PlanTrial.slot_id.in_(slots))),
        *((Stimulus, Stimulus.study_id == study.id), (Study, Study.id == study.id)),  # with conditions and places
    ):
        db.execute(delete(table).where(of), execution_options={"synchronize_session": False})
