"""The addresses under /s/<slug>: each a few lines between HTTP and the service."""

import math
from typing import Any

from flask import Blueprint, Response, current_app, g, jsonify, redirect, render_template
from werkzeug.wrappers import Response as BaseResponse

from study_app import bodies, web
from study_app.refusal import RefusedError
from study_app.service import Overview, Service
from study_app.spec import GAP

THINKING_S = 3  # that an answer takes, for the estimate of how long a session is
study = Blueprint("study", __name__, url_prefix="/s/<slug>")


def _service() -> Service:
    return current_app.extensions["study_service"]


@study.get("")
def entry(slug: str) -> str | BaseResponse:
    """The device check and the consent; who has begun goes on, who has finished sees the last page."""
    overview = _service().overview(slug)
    standing = _service().standing(slug, g.token)
    if standing in ("finished", "expired") and overview.spec.repeats:
        web.fresh_token()
        standing = "new"
    if standing in ("active", "finished"):
        return redirect(web.base(slug) + ("/run" if standing == "active" else "/done"), 303)
    if standing == "expired":
        raise RefusedError("expired", "Your session has ended because nothing happened for too long.")
    if overview.state != "running":
        raise RefusedError("not_running", "This study is not open at the moment.")
    spec = overview.spec
    return render_template(
        "entry.html",
        **_texts(overview, max(spec.exposures_ms)),
        minutes=_minutes(overview),
        viewport=spec.min_viewport,
        consent_text=spec.consent.text,
        consent_version=spec.consent.version,
        consent_sha256=spec.consent.sha256,
        contact=spec.consent.contact,
    )


@study.post("/start")
def start(slug: str) -> tuple[Response, int]:
    """Consent given: take a place. The same cookie again gets the same place."""
    if g.is_fresh:
        raise RefusedError("csrf", "The page is out of date, or cookies are off: allow them and load it again.")
    body = bodies.read(bodies.Start, web.body())
    if _service().standing(slug, g.token) == "new":
        web.limit_starts()
    is_new = _service().enrol(slug, g.token, body)
    return jsonify(next=f"{web.base(slug)}/run"), 201 if is_new else 200


@study.get("/run")
def run(slug: str) -> str | BaseResponse:
    """The page that shows the trials and the questions."""
    standing = _standing(slug)
    if standing == "finished":
        return redirect(f"{web.base(slug)}/done", 303)
    overview = _service().overview(slug)
    return render_template(
        "run.html",
        **_texts(overview, _service().exposure_ms(slug, g.token)),
        breaks=overview.spec.breaks,
        questions=overview.spec.questions,
        subject=_service().certificate(slug, g.token)[0],
    )


@study.get("/done")
def done(slug: str) -> str | BaseResponse:
    """Debriefing and completion code, once every answer is stored."""
    if _standing(slug) == "active":
        return redirect(f"{web.base(slug)}/run", 303)
    spec = _service().overview(slug).spec
    subject, code = _service().certificate(slug, g.token)
    return render_template(
        "done.html",
        title=spec.title,
        base=web.base(slug),
        debrief=spec.debrief,
        completion_code=code,
        subject=subject,
        contact=spec.consent.contact,
        repeats=spec.repeats,
    )


@study.get("/api/next")
def upcoming(slug: str) -> Response:
    """Where the session stands and what comes next."""
    answer = _service().upcoming(slug, g.token)
    for trial in answer["window"]:
        trial["pictures"] = {place: f"{web.base(slug)}/i/{token}" for place, token in trial["pictures"].items()}
    return jsonify(answer)


@study.get("/i/<token>")
def picture(slug: str, token: str) -> Response:
    """A picture of one of the next trials. Nothing but its bytes differs between the two of a pair."""
    return Response(_service().picture(slug, g.token, token), mimetype="image/png")


@study.post("/api/trials/<token>/start")
def start_trial(slug: str, token: str) -> Response:
    """The pictures are about to be shown."""
    body = bodies.read(bodies.Showing, web.body())
    return jsonify(exposure_ms=_service().start(slug, g.token, token, body))


@study.post("/api/trials/<token>/response")
def respond(slug: str, token: str) -> Response:
    """An answer; sent again it is the same answer."""
    return jsonify(correct=_service().respond(slug, g.token, token, bodies.read(bodies.Choice, web.body())))


@study.post("/api/events")
def events(slug: str) -> tuple[str, int]:
    """What happened in the browser."""
    _service().note(slug, g.token, bodies.read(bodies.Events, web.body()))
    return "", 204


@study.post("/api/finish")
def finish(slug: str) -> Response:
    """The answers to the questions at the end."""
    _service().finish(slug, g.token, bodies.read(bodies.Finish, web.body()))
    return jsonify(next=f"{web.base(slug)}/done")


def _standing(slug: str) -> str:
    standing = _service().standing(slug, g.token)
    if standing == "new":
        _service().overview(slug)  # no such study is another error than no session
        raise RefusedError("no_session", "Please begin on the study's first page.")
    if standing == "expired":
        raise RefusedError("expired", "Your session has ended because nothing happened for too long.")
    return standing


def _texts(overview: Overview, exposure_ms: int) -> dict[str, Any]:
    """What the first page and the trials' page both say."""
    spec = overview.spec
    return {
        "title": spec.title,
        "base": web.base(overview.slug),
        "csrf": web.csrf_token(),
        "task": spec.task,
        "question": spec.asked,
        "answers": spec.answers,
        "instructions": spec.instructions,
        "n_practice": spec.practice,
        "feedback": not spec.against,
        "n_trials": spec.per_subject + spec.catch,
        "exposure_s": exposure_ms / 1000,
        "side_by_side": spec.side_by_side,
        "gap": GAP,
        "zoom": spec.zoom,
        "width": overview.width,
        "height": overview.height,
    }


def _minutes(overview: Overview) -> int:
    spec = overview.spec
    trial_s = (max(spec.exposures_ms) + spec.fixation_ms + spec.mask_ms) / 1000 + THINKING_S
    return math.ceil((spec.practice + spec.per_subject + spec.catch) * trial_s / 60)
