"""The addresses under /s/<slug>: each a few lines between HTTP and the service."""

import math
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, current_app, g, jsonify, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from study_app import bodies, recruitment, web
from study_app.enrolment import CLOSED, Overview
from study_app.refusal import RefusedError
from study_app.service import Service
from study_app.spec import AROUND, GAP, MARGIN

THINKING_S = 3  # that an answer takes, for the estimate of how long a session is
FINISH_LIMIT = 64 * 1024  # bytes: ten answers of MAX_TEXT characters that take three bytes each
study = Blueprint("study", __name__, url_prefix="/s/<slug>")


def _service() -> Service:
    return current_app.extensions["study_preview" if web.in_preview() else "study_service"]


@study.get("")
def entry(slug: str) -> str | BaseResponse:
    """The device check and the consent; who has begun goes on, who has finished sees the last page."""
    if web.in_preview():
        current_app.extensions["study_preview"].open(slug)
        web.fresh_token()  # each look begins anew
    overview = _overview(slug)
    spec, only_looks = overview.spec, recruitment.is_preview(overview.spec.recruitment, request.args)
    person = None if only_looks or _has_begun(slug) else web.person(slug)
    standing = "new" if only_looks else _service().standing(slug, g.token, person)
    if standing == "somebody_else" or (standing in ("ended", "expired") and spec.repeats):
        web.fresh_token()
        standing = _service().standing(slug, g.token, person)
    if standing == "active" and person is not None:
        _service().resume(slug, g.token, person)
    if standing in ("active", "ended"):
        return redirect(web.base(slug) + ("/run" if standing == "active" else "/done"), 303)
    if standing in ("expired", "taken_part", "not_invited"):
        raise RefusedError(standing)
    if standing == "new":
        _admit(overview)
    return render_template(
        "entry.html",
        **_texts(overview, max(spec.exposures_ms)),
        only_looks=only_looks,
        query=urlencode(list(request.args.items())),
        minutes=_minutes(overview),
        viewport=spec.min_viewport,
        calibration=spec.calibration,
        consent_text=spec.consent.text,
        consent_version=spec.consent.version,
        consent_sha256=spec.consent.sha256,
        contact=spec.consent.contact,
    )


@study.get("/declined")
def declined(slug: str) -> str:
    """For who does not agree: nothing is stored, and a recruiting service hears of it."""
    spec = _overview(slug).spec
    return render_template(
        "message.html",
        title=spec.title,
        heading=web.gettext("You are not taking part"),
        message=web.gettext("Nothing was stored about you. Thank you for your time."),
        **web.leave_with(slug, "no_consent"),
    )


@study.post("/start")
def start(slug: str) -> tuple[Response, int]:
    """Consent given: take a place. The same cookie, or the same person, again gets the same place."""
    if g.is_fresh:
        raise RefusedError("csrf")
    body = bodies.read(bodies.Start, web.body())
    _overview(slug)
    person = web.person(slug)
    if _service().standing(slug, g.token, person) in ("new", "elsewhere"):
        web.limit_starts(person)
    is_new = _service().enrol(slug, g.token, body, person)
    return jsonify(next=f"{web.base(slug)}/run"), 201 if is_new else 200


@study.post("/withdraw")
def withdraw(slug: str) -> Response:
    """The subject wants to stop, and not to be counted."""
    _service().withdraw(slug, g.token)
    return jsonify(next=f"{web.base(slug)}/done")


@study.get("/run")
def run(slug: str) -> str | BaseResponse:
    """The page that shows the trials and the questions."""
    overview = _overview(slug)
    if _standing(slug) == "ended":
        return redirect(f"{web.base(slug)}/done", 303)
    return render_template(
        "run.html",
        **_texts(overview, _service().exposure_ms(slug, g.token)),
        breaks=overview.spec.breaks,
        fullscreen=overview.spec.fullscreen,
        questions=overview.spec.questions,
        checks=overview.spec.comprehension.questions,
        deletion=overview.spec.deletion,
        subject=_service().certificate(slug, g.token).subject,
    )


@study.get("/done")
def done(slug: str) -> str | BaseResponse:
    """Debriefing and completion code, once every answer is stored."""
    spec = _overview(slug).spec
    if _standing(slug) == "active":
        return redirect(f"{web.base(slug)}/run", 303)
    certificate = _service().certificate(slug, g.token)
    return render_template(
        "done.html",
        title=spec.title,
        base=web.base(slug),
        debrief=spec.debrief,
        deletion=spec.deletion,
        certificate=certificate,
        leaving=certificate.exit,
        contact=spec.consent.contact,
        repeats=spec.repeats,
    )


@study.get("/api/next")
def upcoming(slug: str) -> Response:
    """Where the session stands and what comes next."""
    return jsonify(_service().upcoming(slug, g.token))


@study.get("/i/<token>")
def pictures(slug: str, token: str) -> Response:
    """The pictures of a trial, one PNG file after the other; a header has their lengths, another the receipt."""
    files, receipt = _service().pictures(slug, g.token, token)
    lengths = ", ".join(f"{place}={len(png)}" for place, png in files.items())
    headers = {web.RECEIPT: receipt, web.PICTURES: lengths}
    return Response(b"".join(files.values()), mimetype="application/octet-stream", headers=headers)


@study.post("/api/trials/<token>/start")
def start_trial(slug: str, token: str) -> Response:
    """The pictures are about to be shown."""
    body = bodies.read(bodies.Showing, web.body())
    return jsonify(exposure_ms=_service().start(slug, g.token, token, body))


@study.post("/api/trials/<token>/response")
def respond(slug: str, token: str) -> Response:
    """An answer; sent again it is the same answer. The reply says what comes next, as /api/next does."""
    correct, outlook = _service().respond(slug, g.token, token, bodies.read(bodies.Choice, web.body()))
    return jsonify(correct=correct, next=outlook)


@study.post("/api/events")
def events(slug: str) -> tuple[str, int]:
    """What happened in the browser."""
    _service().note(slug, g.token, bodies.read(bodies.Events, web.body()))
    return "", 204


@study.post("/api/comprehension")
def comprehend(slug: str) -> Response:
    """An attempt at the questions about the instructions."""
    return jsonify(_service().comprehend(slug, g.token, bodies.read(bodies.Attempt, web.body())))


@study.post("/api/finish")
def finish(slug: str) -> Response:
    """The answers to the questions at the end."""
    _service().finish(slug, g.token, bodies.read(bodies.Finish, web.body(FINISH_LIMIT)))
    return jsonify(next=f"{web.base(slug)}/done")


def _overview(slug: str) -> Overview:
    """What the study is; its language and how its subjects come decide on this reply, too."""
    overview = _service().overview(slug)
    g.language, g.recruitment = overview.spec.language, overview.spec.recruitment
    return overview


def _has_begun(slug: str) -> bool:
    """Whether a browser with a session comes by a bare link, such as those of our own pages."""
    return not request.args and not g.is_fresh and _service().standing(slug, g.token) != "new"


def _admit(overview: Overview) -> None:
    """Say so before anybody reads a consent in vain."""
    if overview.state != "running":
        raise RefusedError("not_running", CLOSED[overview.state])
    if not _service().has_place(overview.slug):
        raise RefusedError("full")


def _standing(slug: str) -> str:
    standing = _service().standing(slug, g.token)
    if standing == "new":
        raise RefusedError("no_session")
    if standing == "expired":
        raise RefusedError("expired")
    return standing


def _texts(overview: Overview, exposure_ms: int) -> dict[str, Any]:
    """What the first page and the trials' page both say."""
    spec = overview.spec
    return {
        "title": spec.title,
        "base": web.base(overview.slug),
        "csrf": web.csrf_token(),
        "task": spec.task,
        "questions_of_pair": [criterion.question for criterion in spec.asked],
        "choices": spec.choices,
        "instructions": spec.instructions,
        "n_practice": spec.practice,
        "feedback": spec.has_right_answers,
        "n_trials": spec.per_subject + spec.catch,
        "exposure_s": exposure_ms / 1000,
        "side_by_side": spec.side_by_side,
        "gap": GAP,
        "margin": MARGIN,
        "around": AROUND,
        "zoom": spec.zoom,
        "width": overview.width,
        "height": overview.height,
    }


def _minutes(overview: Overview) -> int:
    spec = overview.spec
    trial_s = (max(spec.exposures_ms) + spec.fixation_ms + spec.mask_ms) / 1000 + THINKING_S * len(spec.asked)
    return math.ceil(spec.trials * trial_s / 60)
