"""What subjects and their browsers are refused: one table, and the exception that names a row of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from study_app.languages import N_


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
        Refusal(400, "bad_request", N_("Something went wrong"), N_("The request cannot be understood.")),
        Refusal(
            401,
            "no_session",
            N_("You are not taking part yet"),
            N_("You are not taking part in this study; start from its first page."),
        ),
        Refusal(
            403,
            "csrf",
            N_("Not possible at the moment"),
            N_("The page is out of date, or cookies are off: allow them and load it again."),
        ),
        Refusal(
            403,
            "no_identity",
            N_("Your link is incomplete"),
            N_("This study can only be opened by the full link that you were given."),
        ),
        Refusal(
            403,
            "not_invited",
            N_("Your invitation is no longer valid"),
            N_("This invitation has expired or was withdrawn. Please ask the researcher for another one."),
        ),
        Refusal(403, "not_running", N_("Not open"), N_("This study is not open at the moment.")),
        Refusal(403, "too_small", N_("Your window is too small"), N_("The pictures need a larger window.")),
        Refusal(404, "not_found", N_("There is nothing here"), N_("There is nothing at this address.")),
        Refusal(405, "not_allowed", N_("Something went wrong"), N_("The method is not allowed at this address.")),
        Refusal(
            409, "answered", N_("Something went wrong"), N_("This trial has already been answered; fetch the next one.")
        ),
        Refusal(409, "conflict", N_("Something went wrong"), N_("Another answer has already been stored.")),
        Refusal(
            409,
            "consent_changed",
            N_("The text has changed"),
            N_("The text has changed; please load the page again and read it."),
        ),
        Refusal(409, "impossible_time", N_("Something went wrong"), N_("The answer claims more time than there was.")),
        Refusal(
            409, "not_fetched", N_("Something went wrong"), N_("The pictures of this trial have not been fetched.")
        ),
        Refusal(409, "not_started", N_("Something went wrong"), N_("The pictures of this trial have not been shown.")),
        Refusal(
            409, "not_yet", N_("Something went wrong"), N_("This picture belongs to a trial that cannot begin yet.")
        ),
        Refusal(409, "out_of_order", N_("Something went wrong"), N_("Another trial comes first; fetch the next one.")),
        Refusal(
            409,
            "somebody_else",
            N_("Please load the page again"),
            N_("Somebody else began in this browser; load the page again."),
        ),
        Refusal(
            409,
            "taken_part",
            N_("You have already taken part"),
            N_("You can take part in this study only once, and you already have."),
        ),
        Refusal(409, "too_early", N_("Something went wrong"), N_("The answer came before the pictures had been seen.")),
        Refusal(409, "trials_missing", N_("Something went wrong"), N_("Some trials have no answer yet.")),
        Refusal(
            410,
            "expired",
            N_("Your session has ended"),
            N_("Nothing happened for a long time, so your place was given to somebody else."),
        ),
        Refusal(410, "over", N_("Your session has ended"), N_("You have left this study.")),
        Refusal(413, "too_large", N_("Something went wrong"), N_("The request is too large.")),
        Refusal(415, "not_json", N_("Something went wrong"), N_("Send the body as application/json.")),
        Refusal(429, "slow_down", N_("Too many requests"), N_("Too many requests; please wait a little.")),
        Refusal(
            500,
            "internal",
            N_("Something went wrong"),
            N_("The server could not do this. Please try again; if it happens again, tell the researcher."),
        ),
        Refusal(
            500,
            "misconfigured",
            N_("Something went wrong"),
            N_("This server is not set up correctly. Please tell the researcher."),
        ),
        Refusal(503, "busy", N_("Please try again later"), N_("The server is busy; please try again.")),
        Refusal(
            503,
            "full",
            N_("All places are taken"),
            N_("All places of this study are taken at the moment. Please try again later."),
        ),
    )
}


class RefusedError(Exception):
    """A row of REFUSALS by its `name`, with a more exact `text` if one is known, marked by N_ where people may read it.

    `extra` goes into the answer, and into the text's %(places)s.
    """

    def __init__(self, name: str, text: str = "", **extra: Any) -> None:
        self.refusal = REFUSALS[name]
        self.text = text or self.refusal.text
        self.extra = extra
        super().__init__(self.message())

    def message(self, translate: Callable[[str], str] = str) -> str:
        """The text, translated, in full."""
        text = translate(self.text)
        return text % self.extra if self.extra else text

    @property
    def code(self) -> str:
        return self.refusal.name
