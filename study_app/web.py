"""What holds for every request: headers, the cookie, CSRF, limits, and errors as pages or JSON."""

import contextlib
import datetime
import hashlib
import hmac
import re
from typing import Any

from babel.numbers import format_decimal
from flask import Flask, Response, current_app, g, jsonify, render_template, request
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from sr3eval.errors import UserError
from study_app.languages import AVAILABLE, N_, SOURCE, catalog
from study_app.limits import Limiter, network
from study_app.recruitment import MTURK_FRAMES, MTURK_SITES, OPEN, Identity, Outcome, identify
from study_app.refusal import REFUSALS, RefusedError
from study_app.signing import Keys, new_token
from study_app.spec import SLUG

COOKIE = "study"
PREVIEW = "preview"  # what the addresses under /s/<slug> are called a second time, for researchers (preview.py)
RECEIPT = "X-Receipt"  # the header of pictures that shows, when their trial starts, that they were fetched
PICTURES = "X-Pictures"  # the header with the length of each, "left=…, right=…"
COOKIE_AGE_S = 30 * 24 * 3600
CAMPUS = 10  # times as many starts an hour may come from one address where every person takes part once
TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; base-uri 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # With these two the browser's clock counts in 5 µs instead of 100 µs.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
STATUS_NAMES = {404: "not_found", 405: "not_allowed", 413: "too_large", 500: "internal"}  # of what Flask itself refuses
LEAVES_WITH: dict[str, Outcome] = {"full": "full", "not_running": "full", "expired": "timed_out"}  # by refusal
RETURNS_TO_ENTRY = ("no_session", "slow_down", "busy", "somebody_else")  # refusals after which the first page helps


def install(app: Flask) -> None:
    """Hook the rules into an app."""
    clock = app.config["CLOCK"]
    per_second, per_hour = app.config["REQUESTS_PER_SECOND"], app.config["STARTS_PER_HOUR"]
    app.extensions["study_request_limit"] = Limiter(clock, per_second and per_second * 3600, 3 * (per_second or 0))
    app.extensions["study_start_limit"] = Limiter(clock, per_hour, per_hour or 0)
    app.extensions["study_campus_limit"] = Limiter(clock, per_hour and CAMPUS * per_hour, CAMPUS * (per_hour or 0))
    _speak(app)
    app.before_request(_check)
    app.after_request(_finish)
    app.context_processor(lambda: {"in_preview": in_preview()})
    app.register_error_handler(RefusedError, _refused)
    app.register_error_handler(HTTPException, _http_error)
    for error in (OperationalError, PoolTimeout):
        app.register_error_handler(error, _busy)
    app.register_error_handler(UserError, _misconfigured)


def _speak(app: Flask) -> None:
    """Let templates say things in the language of the request."""
    app.jinja_env.policies["ext.i18n.trimmed"] = True
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(  # type: ignore[attr-defined]
        gettext, lambda one, many, n: catalog(language()).ngettext(one, many, n), newstyle=True
    )
    app.jinja_env.globals.update(language=language)
    app.jinja_env.filters["number"] = lambda number: format_decimal(number, locale=language())


def language() -> str:
    """Of the study that a request is about; before that is known, what the browser asks for. /admin is in English."""
    if request.blueprint == "dashboard":
        return SOURCE
    return g.get("language") or request.accept_languages.best_match(AVAILABLE) or SOURCE


def gettext(text: str) -> str:
    """The text in the language of the request."""
    return catalog(language()).gettext(text)


def base(slug: str) -> str:
    """Where the study's pages and its API lie: under the prefix, if any, that a proxy serves the application at."""
    return f"{request.script_root}/admin/{slug}/preview" if in_preview() else f"{request.script_root}/s/{slug}"


def in_preview() -> bool:
    """Whether a researcher looks at the study as subjects see it."""
    return request.blueprint == PREVIEW


def csrf_token() -> str:
    """What a page must send back with every POST: proof that it could read the page that was made for its cookie."""
    return hashlib.sha256(f"csrf/{g.token}".encode()).hexdigest()


def person(slug: str) -> Identity | None:
    """Who the address of this request names, in a study that asks; `g.recruitment` says whether it does."""
    return None if in_preview() else identify(slug, g.recruitment, request.args, _keys())


def limit_starts(person: Identity | None) -> None:
    """Refuse too many starts: of one address in an open study, else of one person, and of a whole campus."""
    if in_preview():
        return None
    if person is None:
        return _limit("study_start_limit", _address())
    _limit("study_start_limit", person.hashes(_keys())[0])
    _limit("study_campus_limit", _address())


def fresh_token() -> None:
    """Give this browser a new cookie: it begins anew."""
    g.token, g.is_fresh = new_token(), True


def body(limit: int | None = None) -> bytes:
    """The bytes of a JSON request, at most `limit`, or MAX_CONTENT_LENGTH."""
    if limit is not None:
        request.max_content_length = limit
    if request.mimetype != "application/json":
        raise RefusedError("not_json")
    return request.get_data(cache=False)


def _keys() -> Keys:
    return current_app.extensions["study_keys"]


def _address() -> str:
    """Of the client's address a keyed hash of today."""
    day = datetime.datetime.now(datetime.UTC).date()
    return _keys().hash("address", f"{day}/{network(request.remote_addr)}")


def _check() -> None:
    """The cookie, the rate, and for a POST where it is from; before anything else is looked at."""
    if request.blueprint == "dashboard":
        return  # dashboard.login.check
    arguments = request.view_args or {}
    token = _keys().unsign("cookie", request.cookies.get(COOKIE, ""))
    g.token, g.is_fresh = (token, False) if token else (new_token(), True)
    if not SLUG.fullmatch(arguments.get("slug", "x")) or not TOKEN.fullmatch(arguments.get("token", "x" * 22)):
        raise RefusedError("not_found")
    if "slug" in arguments:
        _limit("study_request_limit", _address() if g.is_fresh else g.token)
    if request.method == "POST":
        sent = request.headers.get("X-CSRF", "").encode()
        if not (_is_from_here() and hmac.compare_digest(sent, csrf_token().encode())):
            raise RefusedError("csrf")


def _is_from_here() -> bool:
    """By what browsers say, but on plain http. The origin tells nothing behind a proxy that sends a Host of its own."""
    return request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"


def _limit(name: str, key: str) -> None:
    wait = current_app.extensions[name].wait_s(key)
    if wait:
        raise RefusedError("slow_down", N_("Too many requests; please wait %(retry_after)d s."), retry_after=wait)


def policy(is_framed: bool) -> str:
    """The Content-Security-Policy, for pages of their own or for those in a frame of MTurk's."""
    frames, forms = (MTURK_FRAMES, f"'self' {' '.join(MTURK_SITES)}") if is_framed else ("'none'", "'self'")
    return f"{POLICY}; frame-ancestors {frames}; form-action {forms}"


def _finish(response: Response) -> Response:
    is_framed = g.get("recruitment", OPEN).is_framed and not in_preview()
    response.headers.update(HEADERS)
    response.headers["Content-Security-Policy"] = policy(is_framed)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "private, no-store"
    if current_app.config["COOKIE_SECURE"]:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    # Only the entry page gives cookies; elsewhere a missing one is an error.
    if g.get("is_fresh") and request.endpoint in ("study.entry", f"{PREVIEW}.entry") and response.status_code == 200:
        _set_cookie(response, is_framed)
    return response


def _set_cookie(response: Response, is_framed: bool) -> None:
    """In another site's frame browsers take a cookie only if it is for such frames, and over TLS."""
    response.set_cookie(
        COOKIE,
        _keys().sign("cookie", g.token),
        max_age=COOKIE_AGE_S,
        path=base((request.view_args or {})["slug"]),
        httponly=True,
        samesite="None" if is_framed else "Lax",
        secure=is_framed or current_app.config["COOKIE_SECURE"] or request.is_secure,
        partitioned=is_framed,
    )


def _refused(refused: RefusedError) -> BaseResponse:
    extra = {**refused.extra}
    retry_after = extra.pop("retry_after", 60 if refused.code == "full" else None)
    return _error(refused.code, refused.message(gettext), retry_after, **extra)


def _http_error(error: HTTPException) -> BaseResponse:
    if error.code is None or error.code < 400:
        return error.get_response()
    return _error(STATUS_NAMES.get(error.code, "error"), status=error.code)


def _busy(error: Exception) -> BaseResponse:
    current_app.logger.error("database: %s", str(error).split("\n")[0])
    return _error("busy", retry_after=5)


def _misconfigured(error: UserError) -> BaseResponse:
    """What only the researcher can mend, say a database of another version: trying again would not help."""
    current_app.logger.error("configuration: %s", error)
    return _error("misconfigured")


def _error(
    name: str, message: str = "", retry_after: int | None = None, status: int | None = None, **extra: Any
) -> BaseResponse:
    """A page for who asks for one, as browsers do for a person; JSON for everybody else."""
    refusal = REFUSALS.get(name, REFUSALS["bad_request"])
    message = message or gettext(refusal.text)
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        page = render_template("message.html", **_page(name, gettext(refusal.heading), message))
        response = current_app.make_response(page)
    else:
        response = jsonify(error=name, message=message, **extra)
    response.status_code = status or refusal.status
    if retry_after:
        response.headers["Retry-After"] = str(retry_after)
    return response


def _page(name: str, heading: str, message: str) -> dict[str, Any]:
    slug = (request.view_args or {}).get("slug")
    link = base(slug) if slug and name in RETURNS_TO_ENTRY else None
    leaves = leave_with(slug, LEAVES_WITH[name]) if slug and name in LEAVES_WITH and "recruitment" in g else {}
    return {"title": heading, "heading": heading, "message": message, "link": link, **leaves}


def leave_with(slug: str, outcome: Outcome) -> dict[str, Any]:
    """What message.html gives those who leave without having finished: a code, or MTurk's form, if there is either."""
    submission, submit_to = _submission(slug)
    leaving = g.recruitment.exit(outcome)
    if not (leaving.code or submission):
        return {}
    return {"leaving": leaving, "submission": submission, "submit_to": submit_to}


def _submission(slug: str) -> tuple[str, str]:
    """MTurk's name of the task, and where its form goes: by the address of this request, else by the session."""
    if g.recruitment.is_framed:
        with contextlib.suppress(RefusedError):
            if (named := person(slug)) is not None:
                return named.submission, named.submit_to
        with contextlib.suppress(RefusedError):
            certificate = current_app.extensions["study_service"].certificate(slug, g.token)
            return certificate.submission, certificate.submit_to
    return "", ""
