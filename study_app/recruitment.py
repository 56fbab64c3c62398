"""Who may take part, how they are known, and what they leave with: the table `recruitment` of a study's TOML.

Parameters of links: Prolific's documentation on external study links; Amazon's on ExternalQuestion.
"""

import datetime
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sr3eval.errors import UserError
from study_app.refusal import RefusedError
from study_app.signing import Keys

Outcome = Literal["complete", "failed_checks", "no_consent", "full", "timed_out"]

PROLIFIC_URL = "https://app.prolific.com/submissions/complete?cc={code}"
# Names of the parameters that say who somebody is, for what project, and what is paid.
PARAMETERS = {
    "prolific": ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID"),
    "mturk": ("workerId", "hitId", "assignmentId"),
}
PREVIEW = "ASSIGNMENT_ID_NOT_AVAILABLE"  # MTurk's assignmentId while a worker only looks at a task
MTURK_SITES = ("https://www.mturk.com", "https://workersandbox.mturk.com")  # what turkSubmitTo may be
MTURK_FRAMES = "https://*.mturk.com"
EXTERNAL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
PROLIFIC_ID = re.compile(r"[0-9a-f]{24}")
INVITATION = "invitation"  # its parameter, too
LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # of codes: none that is mistaken for another
INVITATION_LENGTH = 10
INVITED = re.compile(f"[{LETTERS}]{{{INVITATION_LENGTH}}}")


@dataclass(frozen=True)
class Codes:
    """The codes that a recruiting service knows, by outcome."""

    complete: str = ""
    failed_checks: str = ""
    no_consent: str = ""
    full: str = ""
    timed_out: str = ""

    def __post_init__(self) -> None:
        for outcome, code in vars(self).items():
            if code and not EXTERNAL_ID.fullmatch(code):
                raise UserError(f'recruitment.codes.{outcome} = "{code}": take letters, digits, - and _')
        if self.complete and self.complete == self.failed_checks:
            raise UserError("recruitment.codes: complete and failed_checks are the same code")


@dataclass(frozen=True)
class Exit:
    """What a subject leaves with, either "": a code, and the address that hands it in."""

    outcome: Outcome
    code: str
    url: str


@dataclass(frozen=True)
class Recruitment:
    """source: open to everybody (once a browser), to holders of signed links (`study invite`), or by a service.

    project: of Prolific, the study's id there, which links must then name; "" takes any.
    return_url: where subjects are sent at the end, with {code} in it; Prolific's own by default. Without a code of its
    own for an outcome, a session that came to its end has a random one, and others have none.
    """

    source: Literal["open", "invited", "prolific", "mturk"] = "open"
    project: str = ""
    return_url: str = ""
    codes: Codes = Codes()

    def __post_init__(self) -> None:
        if self.source == "prolific" and not (self.codes.complete and self.codes.failed_checks):
            raise UserError(
                'source = "prolific": name codes.complete and codes.failed_checks as the study there has them'
            )
        if self.project and not (self.source == "prolific" and EXTERNAL_ID.fullmatch(self.project)):
            raise UserError(
                f'recruitment.project = "{self.project}": is the id of a study of Prolific; needs source = "prolific"'
            )
        if self.return_url and not (self.return_url.startswith("https://") and "{code}" in self.return_url):
            raise UserError(f'return_url = "{self.return_url}": must begin with https:// and have {{code}} in it')

    @property
    def knows_people(self) -> bool:
        return self.source != "open"

    @property
    def dead_ends(self) -> list[Outcome]:
        """With which outcomes people cannot go back to where they came from, for want of a code."""
        if not (self.return_url or self.source == "prolific"):
            return []
        return [outcome for outcome in ("no_consent", "full", "timed_out") if not getattr(self.codes, outcome)]

    @property
    def is_framed(self) -> bool:
        """Whether the pages are shown inside another site's."""
        return self.source == "mturk"

    def exit(self, outcome: Outcome, own_code: str = "") -> Exit:
        """`own_code`: the session's, where it has one."""
        code = getattr(self.codes, outcome) or own_code
        url = self.return_url or (PROLIFIC_URL if self.source == "prolific" else "")
        return Exit(outcome, code, url.replace("{code}", code) if code else "")


OPEN = Recruitment()


@dataclass(frozen=True)
class Identity:
    """Who takes part, as others call them: `person` within `source`. What follows is for payment, "" where unknown."""

    source: str
    person: str
    project: str = ""
    submission: str = ""
    submit_to: str = ""
    until: datetime.date | None = None  # the last day, UTC, on which an invitation lets somebody begin

    def hashes(self, keys: Keys) -> list[str]:
        """What the study keeps to know the person again, by the newest key first."""
        return keys.hashes("identity", f"{self.source}/{self.person}")


def is_preview(recruitment: Recruitment, parameters: Mapping[str, str]) -> bool:
    """Whether a worker of MTurk only looks at the task, without having taken it."""
    return recruitment.source == "mturk" and parameters.get("assignmentId") == PREVIEW


def identify(slug: str, recruitment: Recruitment, parameters: Mapping[str, str], keys: Keys) -> Identity | None:
    """Who a link's parameters name; None in an open study. Raises the RefusedError "no_identity"."""
    if recruitment.source == "open":
        return None
    if recruitment.source == "invited":
        signed = keys.unsign(f"{INVITATION}/{slug}", parameters.get(INVITATION, ""))
        if signed is None:
            raise RefusedError("no_identity")
        invited, _, until = signed.partition("~")
        return Identity("invited", invited, until=datetime.date.fromisoformat(until) if until else None)
    found = [parameters.get(name, "") for name in PARAMETERS[recruitment.source]]
    submit_to = parameters.get("turkSubmitTo", "").rstrip("/") if recruitment.source == "mturk" else ""
    is_known_site = recruitment.source != "mturk" or submit_to in MTURK_SITES
    if not all(map(EXTERNAL_ID.fullmatch, found)) or not is_known_site or PREVIEW in found:
        raise RefusedError("no_identity")
    person, project, submission = found
    if recruitment.source == "prolific":
        is_theirs = not recruitment.project or project == recruitment.project
        if not (PROLIFIC_ID.fullmatch(person) and is_theirs):
            raise RefusedError("no_identity")
    return Identity(recruitment.source, person, project, submission, submit_to)


def invitation(slug: str, keys: Keys, until: datetime.date | None = None) -> tuple[str, str]:
    """A new person's random name, and the parameter that proves it, for beginning until that day."""
    person = "".join(secrets.choice(LETTERS) for _ in range(INVITATION_LENGTH))
    return person, keys.sign(f"{INVITATION}/{slug}", f"{person}~{until}" if until else person)
