"""Whom to pay: one row a session that was handed a completion code, or that ended in another way."""

from collections.abc import Sequence

from study_app.dashboard.progress import Subject
from study_app.export import to_csv, utc

COLUMNS = (
    *("participant_id", "submission_id", "source", "subject", "completion_code", "outcome", "minutes"),
    *("started_at", "finished_at"),
)
FORGOTTEN = "deleted"


def outcome(subject: Subject) -> str:
    """In one word or two, what is to be told apart when people are paid."""
    if subject.deleted_at is not None:
        return FORGOTTEN
    if subject.state in ("active", "expired"):
        return "not finished"
    return subject.excluded_reason.replace("_", " ") or "complete"


def approvals(subjects: Sequence[Subject]) -> str:
    """The participants to approve, one id a line: what Prolific's bulk approval takes."""
    return "".join(f"{one.person}\n" for one in subjects if one.source == "prolific" and outcome(one) == "complete")


def payments_csv(subjects: Sequence[Subject]) -> str:
    """The payment list as a table."""
    return to_csv(COLUMNS, (_row(subject) for subject in subjects))


def minutes(subject: Subject) -> float | None:
    """From consent to the end."""
    return None if subject.finished_at is None else (subject.finished_at - subject.started_at) / 60_000


def _row(subject: Subject) -> list[object]:
    took = minutes(subject)
    return [
        *(subject.person, subject.submission, subject.source),
        *(subject.code, subject.completion_code, outcome(subject), "" if took is None else round(took, 1)),
        *(utc(subject.started_at), utc(subject.finished_at)),
    ]
