"""What every column of a study's tables means: the one list of columns, by which tables are read.

The JSON Schema that is written beside the tables is made of it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Column = dict[str, Any]  # a JSON Schema, with `unit` where it has one
MOMENT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"


def _text(description: str) -> Column:
    return {"type": "string", "description": description}


def _one_of(description: str, *values: str) -> Column:
    return _text(description) | {"enum": list(values)}


def _moment(description: str, always: bool = False) -> Column:
    pattern = MOMENT if always else f"^$|{MOMENT}"
    return _text(f"{description} (UTC, ISO 8601)") | {"pattern": pattern}


def _flag(description: str) -> Column:
    return {"type": "integer", "description": description, "enum": [0, 1]}


def _whole(description: str, unit: str = "") -> Column:
    return _numeric("integer", description, unit)


def _number(description: str, unit: str = "") -> Column:
    return _numeric("number", description, unit)


def _numeric(kind: str, description: str, unit: str) -> Column:
    return {"type": kind, "description": description, "minimum": 0} | ({"unit": unit} if unit else {})


def _maybe(column: Column) -> Column:
    """Empty where nothing is known: of a deleted participant, say."""
    return column | {"type": [column["type"], "null"]} | ({"enum": [*column["enum"], None]} if "enum" in column else {})


STUDY = _text("the study's name in addresses")
CONDITION = _text("the condition's label: a model, a viewing time, or both")
EXCLUDED = _text(
    "why the study itself leaves this subject out, or empty: failed_catch, failed_comprehension, withdrew, expired "
    "(left, and the place was given up to somebody else), or a researcher's reason"
)
SUBJECT = _text("the participant's random code")
CONSENT = {
    "consent_version": _text("version of the text that was agreed to"),
    "consent_sha256": _text("sha256 of that text"),
}

RESPONSES: Mapping[str, Column] = {
    "study": STUDY,
    "task": {"type": "integer", "description": "1: the low-resolution picture stands between; 2: it does not"}
    | {"enum": [1, 2]},
    "condition": CONDITION,
    "model": _text("whose output stood beside the real picture; empty in a catch trial"),
    "exposure_ms": _whole("how long the pictures were to be seen", "ms"),
    "subject": SUBJECT,
    "image_id": _text("the image of the pack"),
    "kind": _one_of("only test trials count in fool rates", "test", "practice", "catch"),
    "trial_index": _whole("place in the session, from 0, practice included"),
    "real_side": _one_of("where the real picture was", "left", "right"),
    "choice_side": _one_of("which picture was chosen", "left", "right"),
    "picked_model": _flag("1: the picture that is not the real one was chosen"),
    "rt_ms": _number("from the moment answers were taken to the answer", "ms"),
    "exposure_actual_ms": _number("first frame with the pictures to the first without, by the browser's clock", "ms"),
    "timing_ok": _flag("1: the pictures were seen as planned, and once only; 0 after a reload that showed them again"),
    "finished": _flag("1: the session was finished"),
    "excluded_reason": EXCLUDED,
    "received_at": _moment("when the server had the answer", always=True),
    "reexposed": _flag("1: the pictures were shown again after a reload"),
    "input": _one_of("how the answer was given", "key", "mouse", "touch"),
    "t_on": _number("first frame with the pictures, since the page was loaded", "ms"),
    "t_off": _number("first frame without them", "ms"),
    "n_frames": _whole("frames with the pictures"),
    "frame_median_ms": _number("median time between those frames", "ms"),
    "frame_max_gap_ms": _number("longest time between two of those frames", "ms"),
    "hidden_ms": _number("how long the tab was hidden during the exposure", "ms"),
    "blur_count": _whole("how often the window lost the focus during the exposure"),
    "rt_from_onset_ms": _number("first frame with the pictures to the answer", "ms"),
    "dpr": _maybe(_number("device pixels a CSS pixel")),
    "css_w": _maybe(_number("width of a picture on the screen", "CSS px")),
    "css_h": _maybe(_number("height of a picture on the screen", "CSS px")),
    "natural_w": _whole("width of the picture's file", "px"),
    "natural_h": _whole("height of the picture's file", "px"),
    "viewport_w": _maybe(_whole("width of the window's inside", "CSS px")),
    "viewport_h": _maybe(_whole("height of the window's inside", "CSS px")),
    "fullscreen": _maybe(_flag("1: the page filled the screen")),
    "decode_ms": _number("decoding of the slowest picture of the trial", "ms"),
    "early_attempts": _whole("keys and clicks before answers were taken"),
    "served_at": _moment(
        "when the pictures were sent, by the receipt that the browser showed at the trial's first start; a script that "
        "fetched them several times can have shown a later one",
        always=True,
    ),
    "start_received_at": _moment("when the server heard that the pictures were shown", always=True),
    "against": _text("the model that stood in the real pictures' place, or empty"),
    "group": _text("the images that analyses draw together, such as crops of one photograph; empty: each for itself"),
    "noise": _whole("levels that every value of both pictures is off by at most, other ones in each session", "of 255"),
    "shown_sha256": _text("sha256 of the other picture's pixels as 8-bit RGB, row by row, before noise"),
}
# Of a choice between two models; the rest of its columns are those of RESPONSES that make sense of it.
_CHOICE: Mapping[str, Column] = {
    **{name: RESPONSES[name] for name in ("study", "task", "condition", "exposure_ms", "subject", "image_id", "group")},
    "kind": _one_of("only test trials count in preferences", "test", "practice", "catch"),
    "trial_index": RESPONSES["trial_index"],
    "criterion": _text("which of the study's questions about the pair this answers"),
    "model_left": _text("whose output stood left; empty in a catch trial"),
    "model_right": _text("whose output stood right; empty in a catch trial"),
    "choice_side": _one_of("which picture was chosen, if any", "left", "right", "tie", "skip"),
    "chosen": _text("the model whose output was chosen; empty for a tie, a skipped pair and a catch trial"),
    "real_side": _one_of("where the real picture was in a catch trial, else empty", "", "left", "right"),
    "rt_ms": RESPONSES["rt_ms"],
}
_OF_REAL_PICTURES = ("model", "picked_model", "against", "shown_sha256")
CHOICES: Mapping[str, Column] = {
    **_CHOICE,
    **{name: column for name, column in RESPONSES.items() if name not in (*_CHOICE, *_OF_REAL_PICTURES)},
}
SESSIONS: Mapping[str, Column] = {
    "study": STUDY,
    "condition": CONDITION,
    "subject": SUBJECT,
    "state": _one_of("where the session stands", "active", "finished", "excluded", "withdrew", "expired", "deleted"),
    "started_at": _moment("consent given", always=True),
    "finished_at": _moment("last answer given"),
    "trials_answered": _whole("answers, of every kind of trial"),
    "excluded_reason": EXCLUDED,
    "deleted_at": _moment("when what identified the participant was deleted"),
    **CONSENT,
    "config_sha256": _text("sha256 of the study's settings"),
    "comprehension_attempts": _whole("attempts at the questions about the instructions; 0 where none were asked"),
    "understood_at": _moment("when these were all answered correctly"),
    "viewport_w": _maybe(_whole("width of the window's inside at the start", "CSS px")),
    "viewport_h": _maybe(_whole("height of the window's inside at the start", "CSS px")),
    "dpr": _maybe(_number("device pixels a CSS pixel at the start")),
    "frame_ms": _maybe(_number("median time between frames at the start", "ms")),
    "touch": _maybe(_flag("1: the device is used by touch")),
    "px_per_mm": _maybe(_number("by a card held against the screen at the start", "CSS px/mm")),
    "completion_code": _text(
        "the code that the participant was given to hand in, or empty; many share one of recruitment.codes"
    ),
}
EVENTS: Mapping[str, Column] = {
    "study": STUDY,
    "condition": CONDITION,
    "subject": SUBJECT,
    "seq": _whole("order of the browser's events, unique in a session"),
    "type": _text(
        "hidden, visible, blur, focus, resize, fullscreen, fullscreen_left, fullscreen_refused, reload, offline, "
        "online, too_small, stop_asked, stop_not (asked whether to stop, and did not), refused, error …"
    ),
    "t_client": _number("since the page was loaded", "ms"),
    "t_server": _moment("when the server heard of it", always=True),
    "detail": _text("what more is known of it, or empty"),
}
TABLES: Mapping[str, Mapping[str, Column]] = {
    "responses": RESPONSES,
    "choices": CHOICES,
    "sessions": SESSIONS,
    "events": EVENTS,
}
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(study: str, questions: Sequence[tuple[str, str]], answers: str) -> dict[str, Any]:
    """The codebook of a study as JSON Schema.

    questions: (id, text) of those at the end; sessions have the answers. answers: "responses" or "choices".
    """
    told = {f"answer_{id_}": _maybe(_text(f"answer to: {text}")) for id_, text in questions}
    tables = {answers: TABLES[answers], "sessions": {**SESSIONS, **told}, "events": EVENTS}
    return {
        "$schema": DRAFT,
        "title": f"Tables of the study {study}",
        "description": "One property a table; a row of its CSV file is an item, its columns stand in this order.",
        "type": "object",
        "properties": {name: {"type": "array", "items": _row(columns)} for name, columns in tables.items()},
    }


def published(table: str, columns: Sequence[str]) -> dict[str, Any]:
    """The codebook of a published table of answers, which has these columns of its own, as JSON Schema."""
    row = _row({column: TABLES[table][column] for column in columns})
    return {"$schema": DRAFT, "type": "array", "items": row}


def as_json(schema: Mapping[str, Any]) -> str:
    """A codebook as it is written to a file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _row(columns: Mapping[str, Column]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(columns),
        "required": list(columns),
        "additionalProperties": False,
    }
