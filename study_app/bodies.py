"""What clients may send: strict JSON, every key and range checked before anything is looked up."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

from sr3eval.config import from_dict
from sr3eval.errors import UserError
from study_app.refusal import RefusedError

T = TypeVar("T")
Picked = Literal["left", "right", "tie", "skip"]

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
LARGEST = 2.0**53  # what every JSON number of a browser stays below
MAX_COUNT = 1_000_000
MAX_REAL = 31 * 24 * 3600 * 1000.0  # no page is open for longer, in ms
MAX_TEXT = 2000
MAX_DIGITS = 20
PX_PER_MM = (0.5, 50.0)  # CSS pixels a millimetre: 3.8 at 96 dpi, 6 on telephones, times the browser's zoom


def _positive(body: Any, *names: str) -> None:
    for name in names:
        if getattr(body, name) <= 0:
            raise UserError(f'"{name}" must be above 0')


def _uuid(name: str, value: str) -> None:
    if not UUID.fullmatch(value):
        raise UserError(f'"{name}" must be a UUID')


@dataclass(frozen=True)
class Start:
    """Consent, and the device it comes from; sizes in CSS pixels. px_per_mm: of the screen, where somebody measured."""

    consent_sha256: str
    viewport_w: int
    viewport_h: int
    dpr: float
    frame_ms: float
    touch: bool
    px_per_mm: float | None = None

    def __post_init__(self) -> None:
        _positive(self, "dpr")
        low, high = PX_PER_MM
        if self.px_per_mm is not None and not low <= self.px_per_mm <= high:
            raise UserError(f'"px_per_mm" must be from {low} to {high}')


@dataclass(frozen=True)
class Showing:
    """One showing of a trial's pictures, with their receipt; a repeated request has the same uuid."""

    attempt: str
    receipt: str = ""

    def __post_init__(self) -> None:
        _uuid("attempt", self.attempt)


@dataclass(frozen=True)
class Further:
    """The answer to a further criterion; ms since its question."""

    criterion: str
    choice: Picked
    rt_ms: float


@dataclass(frozen=True)
class Choice:
    """An answer and what the browser measured around it (study_protocol.md §3); times in ms."""

    client_uuid: str
    choice: Picked
    input: Literal["key", "mouse", "touch"]
    t_on: float
    t_off: float
    exposure_ms: float
    n_frames: int
    frame_median_ms: float
    frame_max_gap_ms: float
    hidden_ms: float
    blur_count: int
    rt_ms: float
    rt_from_onset_ms: float
    dpr: float
    css_w: float
    css_h: float
    natural_w: int
    natural_h: int
    viewport_w: int
    viewport_h: int
    fullscreen: bool
    decode_ms: float
    early_attempts: int
    further: tuple[Further, ...] = ()

    def __post_init__(self) -> None:
        _uuid("client_uuid", self.client_uuid)
        _positive(self, "dpr", "css_w", "css_h", "natural_w", "natural_h", "viewport_w", "viewport_h")
        if self.t_off < self.t_on:
            raise UserError('"t_off" is before "t_on"')

    @property
    def sha256(self) -> str:
        """Tells a repeated request from another answer."""
        return hashlib.sha256(json.dumps(self, default=vars, sort_keys=True).encode()).hexdigest()

    @property
    def claimed_ms(self) -> float:
        """From the pictures' onset to the last answer, by the longer of the two accounts that the browser gives."""
        first = max(self.rt_from_onset_ms, self.exposure_ms + self.rt_ms)
        return first + sum(answer.rt_ms for answer in self.further)

    @property
    def measured(self) -> dict[str, Any]:
        """All but the further answers."""
        return {key: value for key, value in vars(self).items() if key != "further"}

    def timing_ok(self, exposure_ms: int) -> bool:
        """Whether the pictures were seen as planned, by the browser's clock: study_protocol.md §3."""
        return abs(self.exposure_ms - exposure_ms) <= 50 and self.hidden_ms == 0 and self.frame_max_gap_ms <= 100


@dataclass(frozen=True)
class BrowserEvent:
    """Something that happened in the browser; `seq` is unique in its session."""

    seq: int
    type: str
    t: float
    detail: str = ""

    def __post_init__(self) -> None:
        if len(self.type) > 32 or len(self.detail) > 500:
            raise UserError('"type" has at most 32 characters, "detail" 500')


@dataclass(frozen=True)
class Events:
    events: tuple[BrowserEvent, ...]

    def __post_init__(self) -> None:
        if len(self.events) > 100:
            raise UserError('"events" has at most 100 entries')


@dataclass(frozen=True)
class Attempt:
    """An attempt at the comprehension check, from 1: the options chosen, in the questions' order."""

    attempt: int
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Finish:
    """Answers by the question's id."""

    answers: dict[str, str]


def read(cls: type[T], raw: bytes) -> T:
    """Build a body from JSON, or raise the RefusedError "bad_request" that names what is wrong."""
    try:
        data = json.loads(raw, parse_constant=_no_constant, parse_int=_whole)
        _check(data, "")
        if not isinstance(data, Mapping):
            raise UserError("the body must be an object")
        body = from_dict(cls, data)
        _check_counts(body)
        return body
    except UserError as error:
        raise RefusedError("bad_request", str(error)[:200]) from None
    except (ValueError, RecursionError):
        raise RefusedError("bad_request", "the body is not JSON") from None


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise UserError("a number is too large")
    return int(text)


def _no_constant(name: str) -> NoReturn:
    raise UserError(f"{name} is no number of JSON")


def _check(value: Any, name: str) -> None:
    """Ranges and lengths that hold everywhere; how deep a body goes, its type says."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_text(key, "a key")
            _check(item, key)
    elif isinstance(value, list):
        for item in value:
            _check(item, name)
    elif isinstance(value, str):
        _check_text(value, name)
    elif isinstance(value, int | float) and not 0 <= value < LARGEST:  # true and false pass, infinity does not
        raise UserError(f'"{name}" must be a number from 0 to {LARGEST:.0f}')


def _check_text(text: str, name: str) -> None:
    if len(text) > MAX_TEXT or "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise UserError(f'"{name[:40]}" is too long or holds characters that are none')


def _check_counts(body: Any) -> None:
    for field in dataclasses.fields(body):
        value = getattr(body, field.name)
        if isinstance(value, float) and value > MAX_REAL:
            raise UserError(f'"{field.name}" must be from 0 to {MAX_REAL:.0f}')
        if isinstance(value, int) and value > MAX_COUNT:
            raise UserError(f'"{field.name}" must be from 0 to {MAX_COUNT}')
