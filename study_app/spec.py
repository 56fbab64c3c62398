"""What a study is: a TOML file read strictly, checked before anything is made from it."""

import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sr3eval.config import from_dict, read_toml, to_toml
from sr3eval.errors import UserError, nearest
from study_app import languages
from study_app.comprehension import NONE, Comprehension
from study_app.recruitment import OPEN, Recruitment
from study_app.texts import ANSWERS, DEBRIEF, DEBRIEF_OF_MODELS, QUESTIONS, consent

STUDIES = Path(__file__).parent / "studies"
# CSS pixels: between pictures that are shown side by side, left and right of them together, and above and below them
# together, for the question and the buttons.
GAP, MARGIN, AROUND = 32, 48, 200
LONGEST_QUESTION, LONGEST_LABEL = 500, 60  # characters
SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
EARLY_MS = 250  # by the server's clock an answer may come this much before the exposure's end, or claim this much more
LATENCY_MS = 2000  # what start and answer may take on their way, for the two clocks to agree


@dataclass(frozen=True)
class Consent:
    """What subjects agree to. Its hash and version are stored with every agreement. Empty: the standard text."""

    version: str = "1"
    text: str = ""
    contact: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256("\x1f".join((self.version, self.text, self.contact)).encode()).hexdigest()


POINTS = ("1", "2", "3", "4", "5")  # of a scale


@dataclass(frozen=True)
class Question:
    """A question at the end, which nobody has to answer unless it is `required`.

    options: of a choice, what can be chosen; of a scale of five points, what its first and its last one mean.
    """

    id: str
    text: str
    kind: Literal["text", "choice", "scale"] = "text"
    options: tuple[str, ...] = ()
    required: bool = False

    def __post_init__(self) -> None:
        if bool(self.options) != (self.kind != "text"):
            raise UserError(f'question "{self.id}": a choice and a scale need options, a text takes none')
        if self.kind == "scale" and len(self.options) != 2:
            raise UserError(f'question "{self.id}": a scale has two options, what its first and its last point mean')

    @property
    def answers(self) -> tuple[str, ...]:
        """What can be answered; nothing where any text can."""
        return POINTS if self.kind == "scale" else self.options


@dataclass(frozen=True)
class Criterion:
    """What a pair is judged by, where that is more than one thing; `id` names it in the export."""

    id: str
    question: str


class Matchup(NamedTuple):
    """A model, and what its picture is shown beside: that of another model, or the real one ("")."""

    model: str
    rival: str = ""


@dataclass(frozen=True)
class Spec:
    """A two-alternative forced-choice study. Times in ms, sizes in CSS pixels; counts are of trials or subjects.

    compare = "models": pairs of models, all of them or those named in `pairs`, without the real picture. `tie` and
    `skip` are the labels of further buttons, which are there if these say something; `criteria` are asked one after
    the other of every pair; with `adaptive`, later subjects see more of the pairs whose order is uncertain.

    against: a model of the pack whose outputs stand in the real pictures' place, so that models are compared with it.
    Neither here nor between models does practice tell an answer from another, since none is wrong.

    A condition is a viewing time with one model, or pair of models (`mode = "between"`), or with all of them
    ("within"); `target` subjects complete each. Raises UserError for what cannot be balanced exactly.
    """

    title: str
    task: Literal[1, 2]
    question: str = ""  # in place of the paper's of the task
    answers: tuple[str, ...] = ()  # what the buttons say, in place of the standard "Left" and "Right"
    instructions: str = ""  # paragraphs in place of the standard ones
    compare: Literal["real", "models"] = "real"
    pairs: tuple[tuple[str, str], ...] = ()
    tie: str = ""
    skip: str = ""
    criteria: tuple[Criterion, ...] = ()
    adaptive: bool = False
    against: str = ""
    images: int = 100  # test images, of which a subject sees
    per_subject: int = 50
    target: int = 50
    practice: int = 4
    catch: int = 8
    catch_pass: int = 7
    catch_picture: Literal["other", "blur"] = "other"  # what stands beside the right one: see pack.py, or a blur of it
    exposures_ms: tuple[int, ...] = (3000,)
    mode: Literal["between", "within"] = "between"
    fixation_ms: int = 500
    mask_ms: int = 0  # 0: blank after the pictures
    breaks: int = 1  # spread evenly over the test trials
    zoom: int = 1  # CSS pixels a picture's pixel is wide
    noise: int = 1  # levels of 255 by which a pair's pixels change at most, in each session by others; 0: not at all
    lr_resize: Literal["nearest", "bicubic"] = "nearest"  # how the low-resolution picture comes to full size
    min_viewport: tuple[int, ...] = (900, 600)
    calibration: bool = (
        False  # whether subjects are asked to hold a card against the screen, for its pixels a millimetre
    )
    fullscreen: bool = False  # whether the browser is asked to fill the screen, which nobody has to allow
    idle_minutes: int = 45  # until an abandoned place may be given to somebody else
    repeats: bool = False  # whether the same browser may take part again, in an open study
    replace_failed: bool = True  # whether who fails the catch trials is left out and the place given to somebody else
    deletion: Literal["keep_answers", "delete_answers"] = "delete_answers"  # what `delete-participant` does
    seed: int = 0  # of the plan, beside a secret that `freeze` draws
    language: str = languages.SOURCE  # of all that is not this file's own text
    recruitment: Recruitment = OPEN
    comprehension: Comprehension = NONE
    consent: Consent = Consent()
    debrief: str = DEBRIEF
    questions: tuple[Question, ...] = ()

    def __post_init__(self) -> None:
        check_numbers(self)
        check_language(self)
        self._translate()
        check_texts(self)
        check_comparison(self)
        if self.per_subject > self.images:
            raise UserError(f"per_subject = {self.per_subject}: there are only images = {self.images}")
        if self.target * self.per_subject % self.images:
            raise UserError(
                f"{self.target} subjects of {self.per_subject} pictures do not see {self.images} images equally often; "
                "make target * per_subject a multiple of images"
            )
        if self.catch_pass > self.catch:
            raise UserError(f"catch_pass = {self.catch_pass}: there are only catch = {self.catch} trials")
        if self.task == 1 and self.catch == 1:
            raise UserError("catch = 1: a catch trial of Task-1 shows another catch image; take at least 2, or 0")
        if self.repeats and self.recruitment.knows_people:
            raise UserError('repeats = true: only if recruitment.source is "open"; others take part once')
        if len({question.id for question in self.questions}) < len(self.questions):
            raise UserError("two questions have the same id")

    def _translate(self) -> None:
        """Put the standard texts, in the study's language, where it has none of its own."""
        translate = languages.catalog(self.language).gettext
        texts: dict[str, Any] = {}
        if not self.answers:
            texts["answers"] = tuple(map(translate, ANSWERS))
        if not self.consent.text:
            two_buttons = not (self.tie or self.skip) and len(self.asked) == 1
            text = consent(self.language, self.recruitment.knows_people, two_buttons, self.deletion == "keep_answers")
            texts["consent"] = replace(self.consent, text=text)
        if self.debrief == DEBRIEF:
            texts["debrief"] = translate(DEBRIEF if self.has_right_answers else DEBRIEF_OF_MODELS)
        for key, text in texts.items():
            object.__setattr__(self, key, text)

    @property
    def asked(self) -> tuple[Criterion, ...]:
        """What is asked of every pair, in this order; a single question has no id."""
        question = self.question or languages.catalog(self.language).gettext(QUESTIONS[self.task])
        return self.criteria or (Criterion("", question),)

    @property
    def choices(self) -> dict[str, str]:
        """The label of every button."""
        left, right = self.answers
        return {"left": left, "right": right} | {k: v for k, v in (("tie", self.tie), ("skip", self.skip)) if v}

    @property
    def has_right_answers(self) -> bool:
        """Whether one picture of every pair is the real one."""
        return self.compare == "real" and not self.against

    @property
    def answers_table(self) -> str:
        """What the export calls the table of answers."""
        return "choices" if self.compare == "models" else "responses"

    @property
    def trials(self) -> int:
        return self.practice + self.per_subject + self.catch

    @property
    def side_by_side(self) -> int:
        return 3 if self.task == 1 else 2

    @property
    def sha256(self) -> str:
        return hashlib.sha256(to_toml(self).encode()).hexdigest()

    def matchups(self, models: Sequence[str]) -> list[Matchup]:
        """What is shown beside what, of the models that the study has."""
        if self.compare == "real":
            return [Matchup(model, self.against) for model in models]
        return [Matchup(*pair) for pair in self.pairs or itertools.combinations(models, 2)]

    def check_models(self, models: Sequence[str]) -> None:
        """Raise UserError where `models` cannot be shown in exact balance."""
        for model in itertools.chain(*self.pairs):
            if model not in models:
                raise UserError(f'pairs: no model "{model}" in the study: {nearest(model, models)}')
        matchups = self.matchups(models)
        if not matchups:
            raise UserError("the study has no models" + " to compare: it needs two" * (self.compare == "models"))
        shared = len(matchups) if self.mode == "within" else 1
        what = f"{shared} {'models' if self.compare == 'real' else 'pairs of models'}"
        if self.per_subject % (2 * shared):
            raise UserError(
                f"per_subject = {self.per_subject} does not divide evenly by 2 sides"
                + (f" and {what}" if shared > 1 else "")
                + f"; take {self.per_subject // (2 * shared) * 2 * shared or 2 * shared}"
            )
        views = self.target * self.per_subject // self.images
        if views % shared:
            raise UserError(f"each image is seen {views} times, which {what} cannot share equally; change target")

    def needed_window(self, width: int, height: int, dpr: float = 1.0) -> tuple[int, int]:
        """The smallest window, in CSS pixels, for pictures of this size at `dpr` device pixels a CSS pixel.

        A picture's pixel is a whole number of device pixels wide. static/device.js computes the same in the browser.
        """
        scale = max(1, math.floor(self.zoom * dpr + 0.5)) / dpr
        across = self.side_by_side * width * scale + (self.side_by_side - 1) * GAP + MARGIN
        down = height * scale + AROUND
        return max(math.ceil(across), self.min_viewport[0]), max(math.ceil(down), self.min_viewport[1])

    def check_contact(self) -> None:
        """Raise UserError where people are recruited who could ask nobody."""
        if self.recruitment.knows_people and not self.consent.contact.strip():
            raise UserError(f'source = "{self.recruitment.source}": name in consent.contact whom people can write to')

    def check_size(self, width: int, height: int) -> None:
        """Raise UserError where pictures of this size, zoomed, do not fit into the smallest viewport allowed."""
        needed = self.needed_window(width, height)
        if needed != tuple(self.min_viewport):
            raise UserError(
                f"{self.side_by_side} pictures of {width}x{height} at zoom {self.zoom} need {needed[0]}x{needed[1]}; "
                f"raise min_viewport = {list(self.min_viewport)} or lower zoom"
            )


# By key the least and the greatest value.
LIMITS = {
    "images": (1, 10_000),
    "per_subject": (2, 1_000),
    "target": (1, 10_000),
    "practice": (0, 50),
    "catch": (0, 50),
    "catch_pass": (0, 50),
    "fixation_ms": (0, 10_000),
    "mask_ms": (0, 10_000),
    "breaks": (0, 20),
    "zoom": (1, 16),
    "noise": (0, 2),
    "idle_minutes": (1, 10_080),
    "seed": (0, 2**53),
}


def check_numbers(spec: Spec) -> None:
    """Raise UserError for a number out of its range."""
    for key, (low, high) in LIMITS.items():
        if not low <= getattr(spec, key) <= high:
            raise UserError(f"{key} = {getattr(spec, key)}: must be from {low} to {high}")
    if not spec.exposures_ms or len(set(spec.exposures_ms)) < len(spec.exposures_ms):
        raise UserError(f"exposures_ms = {list(spec.exposures_ms)}: name each viewing time once")
    if not all(50 <= ms <= 600_000 for ms in spec.exposures_ms):
        raise UserError(f"exposures_ms = {list(spec.exposures_ms)}: must be from 50 to 600000")
    if len(spec.min_viewport) != 2 or min(spec.min_viewport) < 1:
        raise UserError(f"min_viewport = {list(spec.min_viewport)}: must be [width, height]")


def check_language(spec: Spec) -> None:
    """Raise UserError for a language without a catalog."""
    if spec.language not in languages.AVAILABLE:
        raise UserError(f'language = "{spec.language}": {nearest(spec.language, languages.AVAILABLE)}')


def check_texts(spec: Spec) -> None:
    """Raise UserError for a text that its place on the page does not hold."""
    for criterion in spec.asked:
        if not criterion.question.strip() or len(criterion.question) > LONGEST_QUESTION:
            raise UserError(f"question: must have 1 to {LONGEST_QUESTION} characters")
    if len(spec.answers) != 2:
        raise UserError(f"answers = {list(spec.answers)}: must be [left, right]")
    labels = list(spec.choices.values())
    if not all(label.strip() and len(label) <= LONGEST_LABEL for label in labels):
        raise UserError(f"answers = {labels}: a button must have 1 to {LONGEST_LABEL} characters")
    if len(set(labels)) < len(labels):
        raise UserError(f"answers = {labels}: two buttons have the same text")


def check_comparison(spec: Spec) -> None:
    """Raise UserError for settings of pairs of models that contradict each other."""
    if spec.compare == "real":
        for key in ("pairs", "tie", "skip", "criteria", "adaptive"):
            if getattr(spec, key):
                raise UserError(f'{key}: only for compare = "models", where no picture is real')
        return
    if spec.against:
        raise UserError('against: compares models with one of them; compare = "models" has `pairs` for that')
    if len({frozenset(pair) for pair in spec.pairs}) < len(spec.pairs) or any(a == b for a, b in spec.pairs):
        raise UserError("pairs: name each pair of two different models once")
    if spec.criteria and spec.question:
        raise UserError("question: each of the criteria has its own; leave this one out")
    ids = [criterion.id for criterion in spec.criteria]
    if len(set(ids)) < len(ids) or not all(map(SLUG.fullmatch, ids)):
        raise UserError(f"criteria: ids {ids} must differ, and consist of lower-case letters, digits, - and _")
    if spec.adaptive and spec.mode != "within":
        raise UserError('adaptive: chooses among the pairs of a subject; set mode = "within"')


def available() -> list[str]:
    """The studies that come with the toolkit."""
    return sorted(path.stem for path in STUDIES.glob("*.toml"))


def load(name: str, overrides: Sequence[str] = ()) -> Spec:
    """Read the study `name`, one of `available()` or a TOML file, with `key=value` overrides.

    Raises UserError for an unknown study or key, a wrong type or value.
    """
    path = Path(name) if name.endswith(".toml") else STUDIES / f"{name}.toml"
    if not name.endswith(".toml") and name not in available():
        raise UserError(f'no study "{name}": {nearest(name, available())}')
    return from_dict(Spec, read_toml(path, overrides))
