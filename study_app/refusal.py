"""What subjects and their browsers are refused: one table, and the exception that names a row of it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Refusal:
    """`name` is for programs; `heading` and `text`, one line each, are for people."""

    status: int
    name: str
    heading: str
    text: str


REFUSALS = {
    row.name: row
    for row in (
        Refusal(400, "bad_request", "Something went wrong", "The request cannot be understood."),
        Refusal(
            401,
            "no_session",
            "You are not taking part yet",
            "You are not taking part in this study; start from its first page.",
        ),
        Refusal(
            403,
            "csrf",
            "Not possible at the moment",
            "The page is out of date, or cookies are off: allow them and load it again.",
        ),
        Refusal(
            403,
            "no_identity",
            "Your link is not complete",
            "This study can only be opened by the full link that you were given.",
        ),
        Refusal(403, "not_running", "Not open", "This study is not open at the moment."),
        Refusal(403, "too_small", "Your window is too small", "The pictures need a larger window."),
        Refusal(404, "not_found", "There is nothing here", "There is nothing at this address."),
        Refusal(405, "not_allowed", "Something went wrong", "The method is not allowed at this address."),
        Refusal(409, "answered", "Something went wrong", "This trial has its answer; fetch the next one."),
        Refusal(409, "conflict", "Something went wrong", "Another answer is stored already."),
        Refusal(
            409,
            "consent_changed",
            "The text has changed",
            "The text has changed; please load the page again and read it.",
        ),
        Refusal(409, "impossible_time", "Something went wrong", "The answer claims more time than there was."),
        Refusal(409, "not_fetched", "Something went wrong", "The pictures of this trial have not been fetched."),
        Refusal(409, "not_started", "Something went wrong", "The pictures of this trial have not been shown."),
        Refusal(409, "not_yet", "Something went wrong", "This picture belongs to a trial that cannot begin yet."),
        Refusal(409, "out_of_order", "Something went wrong", "Another trial comes first; fetch the next one."),
        Refusal(
            409,
            "somebody_else",
            "Please load the page again",
            "Somebody else began in this browser; load the page again.",
        ),
        Refusal(
            409, "taken_part", "You have taken part already", "This study can be taken once, and you have done so."
        ),
        Refusal(409, "too_early", "Something went wrong", "The answer came before the pictures had been seen."),
        Refusal(409, "trials_missing", "Something went wrong", "Some trials have no answer yet."),
        Refusal(
            410, "expired", "Your session has ended", "Your session has ended because nothing happened for too long."
        ),
        Refusal(410, "over", "Your session has ended", "You have left this study."),
        Refusal(413, "too_large", "Something went wrong", "The request is too large."),
        Refusal(415, "not_json", "Something went wrong", "Send the body as application/json."),
        Refusal(429, "slow_down", "Too many requests", "Too many requests; please wait a little."),
        Refusal(
            500,
            "misconfigured",
            "Something went wrong",
            "This server is not set up correctly. Please tell the researcher.",
        ),
        Refusal(503, "busy", "Please try again later", "The server is busy; please try again."),
        Refusal(
            503,
            "full",
            "All places are taken",
            "All places of this study are taken at the moment. Please try again later.",
        ),
    )
}


class RefusedError(Exception):
    """A row of REFUSALS by its `name`, with a more exact `text` if one is known; `extra` goes into the answer too."""

    def __init__(self, name: str, text: str = "", **extra: Any) -> None:
        self.refusal = REFUSALS[name]
        self.message = text or self.refusal.text
        super().__init__(self.message)
        self.extra = extra

    @property
    def code(self) -> str:
        return self.refusal.name
