"""The tables. What must hold is a constraint here: the service may be wrong, the data cannot be.

Times are UTC in milliseconds. Some facts have no column because a query gives them: a trial is answered when it has a
response, and what was picked follows from the real side.
"""

from study_app.models.answers import SCREEN, Answer, Event, FurtherChoice, Response, Trial
from study_app.models.base import Base
from study_app.models.office import Account, Audit
from study_app.models.people import (
    ACTIVE,
    ENDED,
    EXPIRED,
    LIVE_STATES,
    Identity,
    Participant,
    Revocation,
    Session,
    is_alive,
    of_study,
)
from study_app.models.plan import Condition, PlanSlot, PlanTrial, Stimulus, Study

__all__ = [
    "ACTIVE",
    "ENDED",
    "EXPIRED",
    "LIVE_STATES",
    "SCREEN",
    "Account",
    "Answer",
    "Audit",
    "Base",
    "Condition",
    "Event",
    "FurtherChoice",
    "Identity",
    "Participant",
    "PlanSlot",
    "PlanTrial",
    "Response",
    "Revocation",
    "Session",
    "Stimulus",
    "Study",
    "Trial",
    "is_alive",
    "of_study",
]
