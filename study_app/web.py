"""What holds for every request: headers, the cookie, CSRF, limits, and errors as pages or JSON."""

import datetime
import hashlib
import hmac
import re
from typing import Any

from flask import Flask, Response, current_app, g, jsonify, render_template, request
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from sr3eval.errors import UserError
from study_app.limits import Limiter
from study_app.refusal import RefusedError
from study_app.service import new_token
from study_app.spec import SLUG

COOKIE = "study"
COOKIE_AGE_S = 30 * 24 * 3600
TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # With these two the browser's clock counts in 5 µs instead of 100 µs.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
STATUS = {
    "bad_request": 400,
    "no_session": 401,
    "csrf": 403,
    "too_small": 403,
    "not_running": 403,
    "not_found": 404,
    "consent_changed": 409,
    "too_early": 409,
    "not_started": 409,
    "out_of_order": 409,
    "answered": 409,
    "conflict": 409,
    "trials_missing": 409,
    "expired": 410,
    "not_json": 415,
    "slow_down": 429,
    "full": 503,
    "busy": 503,
}
NAMES = {404: "not_found", 405: "not_allowed", 413: "too_large"}
HEADINGS = {
    401: "You are not taking part yet",
    403: "Not possible at the moment",
    404: "There is nothing here",
    410: "This session has ended",
    429: "Too many requests",
    503: "Please try again later",
}


def install(app: Flask) -> None:
    """Hook the rules into an app."""
    clock = app.config["CLOCK"]
    per_second, per_hour = app.config["REQUESTS_PER_SECOND"], app.config["STARTS_PER_HOUR"]
    app.extensions["study_request_limit"] = Limiter(clock, per_second and per_second * 3600, 3 * (per_second or 0))
    app.extensions["study_start_limit"] = Limiter(clock, per_hour, per_hour or 0)
    app.before_request(_check)
    app.after_request(_finish)
    app.register_error_handler(RefusedError, _refused)
    app.register_error_handler(HTTPException, _http_error)
    for error in (OperationalError, PoolTimeout):
        app.register_error_handler(error, _busy)
    app.register_error_handler(UserError, _misconfigured)


def base(slug: str) -> str:
    """Where the study's pages and its API lie: under the prefix, if any, that a proxy serves the application at."""
    return f"{request.script_root}/s/{slug}"


def csrf_token() -> str:
    """What a page must send back with every POST: proof that it could read the page that was made for its cookie.

    It follows from the cookie alone, 128 random bits, so that a restart with another SECRET_KEY refuses nobody.
    """
    return hashlib.sha256(f"csrf/{g.token}".encode()).hexdigest()


def limit_starts() -> None:
    """Refuse where too many sessions were started from one address, of which only a keyed hash of today is held."""
    day = datetime.datetime.now(datetime.UTC).date()
    address = hmac.new(_secret(), f"{day}/{request.remote_addr}".encode(), hashlib.sha256).hexdigest()
    _limit("study_start_limit", address)


def fresh_token() -> None:
    """Give this browser a new cookie: it begins anew."""
    g.token, g.is_fresh = new_token(), True


def body() -> bytes:
    """The bytes of a JSON request, at most MAX_CONTENT_LENGTH."""
    if request.mimetype != "application/json":
        raise RefusedError("not_json", "Send the body as application/json.")
    return request.get_data(cache=False)


def _secret() -> bytes:
    return str(current_app.config["SECRET_KEY"]).encode()


def _check() -> None:
    """The cookie, the rate, and for a POST where it is from; before anything else is looked at."""
    arguments = request.view_args or {}
    cookie = request.cookies.get(COOKIE, "")
    g.token, g.is_fresh = (cookie, False) if TOKEN.fullmatch(cookie) else (new_token(), True)
    if not SLUG.fullmatch(arguments.get("slug", "x")) or not TOKEN.fullmatch(arguments.get("token", "x" * 22)):
        raise RefusedError("not_found", "There is nothing at this address.")
    if "slug" in arguments:
        _limit("study_request_limit", str(request.remote_addr) if g.is_fresh else g.token)
    if request.method == "POST":
        sent = request.headers.get("X-CSRF", "").encode()
        if not (_is_from_here() and hmac.compare_digest(sent, csrf_token().encode())):
            raise RefusedError("csrf", "The page is out of date, or cookies are off: allow them and load it again.")


def _is_from_here() -> bool:
    """By what browsers say, but on plain http. The origin tells nothing behind a proxy that sends a Host of its own."""
    return request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"


def _limit(name: str, key: str) -> None:
    wait = current_app.extensions[name].wait_s(key)
    if wait:
        raise RefusedError("slow_down", f"Too many requests; please wait {wait} s.", retry_after=wait)


def _finish(response: Response) -> Response:
    response.headers.update(HEADERS)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "private, no-store"
    if current_app.config["COOKIE_SECURE"]:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    slug = (request.view_args or {}).get("slug")
    # Only the entry page gives cookies; elsewhere a missing one is an error.
    if slug and g.get("is_fresh") and request.endpoint == "study.entry" and response.status_code == 200:
        response.set_cookie(
            COOKIE,
            g.token,
            max_age=COOKIE_AGE_S,
            path=base(slug),
            httponly=True,
            samesite="Lax",
            secure=current_app.config["COOKIE_SECURE"] or request.is_secure,
        )
    return response


def _refused(refusal: RefusedError) -> BaseResponse:
    extra = {**refusal.extra}
    retry_after = extra.pop("retry_after", 60 if refusal.code == "full" else None)
    return _error(STATUS[refusal.code], refusal.code, refusal.message, retry_after, **extra)


def _http_error(error: HTTPException) -> BaseResponse:
    if error.code is None or error.code < 400:
        return error.get_response()
    message = (error.description or error.name).split("\n")[0]
    return _error(error.code, NAMES.get(error.code, "error"), message)


def _busy(error: Exception) -> BaseResponse:
    current_app.logger.error("database: %s", str(error).split("\n")[0])
    return _error(503, "busy", "The server is busy; please try again.", 5)


def _misconfigured(error: UserError) -> BaseResponse:
    """What only the researcher can mend, say a database of another version: trying again would not help."""
    current_app.logger.error("configuration: %s", error)
    return _error(500, "misconfigured", "This server is not set up correctly. Please tell the researcher.")


def _error(status: int, code: str, message: str, retry_after: int | None = None, **extra: Any) -> BaseResponse:
    """JSON for scripts, a page for people."""
    if request.method == "POST" or "/api/" in request.path or "/i/" in request.path:
        response = jsonify(error=code, message=message, **extra)
    else:
        slug = (request.view_args or {}).get("slug")
        link = base(slug) if slug and status in (401, 429, 503) else None
        heading = HEADINGS.get(status, "Something went wrong")
        page = render_template(
            "message.html", title=heading, heading=heading, message=message, link=link, link_text="To the first page"
        )
        response = current_app.make_response(page)
    response.status_code = status
    if retry_after:
        response.headers["Retry-After"] = str(retry_after)
    return response
