"""Who is logged in: a signed cookie, forms that only these pages can send, and a throttle on passwords."""

import datetime
import hmac
import secrets

from flask import Flask, Request, current_app, g, redirect, request, session, url_for
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from werkzeug.wrappers import Response as BaseResponse

from study_app.accounts import Accounts
from study_app.admin import Admin
from study_app.limits import Limiter, network
from study_app.refusal import RefusedError
from study_app.web import PREVIEW

LIFETIME = datetime.timedelta(hours=12)  # of a login without any request
ATTEMPTS_PER_HOUR, ATTEMPTS_AT_ONCE = 30, 8  # of an address, and of a name
OPEN = ("dashboard.login_", "dashboard.enter")


class Sessions(SecureCookieSessionInterface):
    """Flask's sessions, for these pages alone: subjects have a cookie of their own, and many requests."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """None elsewhere: Flask then has one that is empty and cannot be written to."""
        return super().open_session(app, request) if request.path.startswith("/admin") else None


def install(app: Flask) -> None:
    """The cookie's settings, the accounts and the throttle."""
    app.session_interface = Sessions()
    app.config.update(
        SESSION_COOKIE_NAME="study_admin",
        SESSION_COOKIE_PATH=f"{app.config['PREFIX']}/admin",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=app.config["COOKIE_SECURE"],
        PERMANENT_SESSION_LIFETIME=LIFETIME,
    )
    app.extensions["study_accounts"] = Accounts(app.extensions["study_admin"])
    app.extensions["study_login_limit"] = Limiter(app.config["CLOCK"], ATTEMPTS_PER_HOUR, ATTEMPTS_AT_ONCE)


def check() -> BaseResponse | None:
    """Before every request: is this form ours, and is somebody logged in? `g.admin` then acts in the name of them."""
    if request.method == "POST" and not _is_ours():
        raise RefusedError("csrf", "The page is out of date, or cookies are off: load it again.")
    return None if is_logged_in() or request.endpoint in OPEN else _to_login()


def is_logged_in() -> bool:
    """Whether somebody is, in whose name `g.admin` then acts."""
    name = session.get("name", "")
    if not name or not hmac.compare_digest(session.get("stamp", ""), _accounts().stamp(name) or "-"):
        return False
    g.admin = Admin(current_app.extensions["study_database"], current_app.config["CLOCK"], actor=name)
    return True


def check_preview() -> BaseResponse | None:
    """Before every request of a preview, whose forms its own pages prove: is a researcher logged in?"""
    if request.blueprint != PREVIEW or is_logged_in():
        return None
    if request.endpoint == f"{PREVIEW}.entry":
        return _to_login()
    raise RefusedError("no_session")


def _to_login() -> BaseResponse:
    """And from there back to the page, no picture or file of it, that was asked for."""
    if request.method == "GET" and "text/html" in request.accept_mimetypes.values():
        session["wanted"] = request.script_root + request.path
    return redirect(url_for("dashboard.login_"), 303)


def wanted() -> str:
    """The page that somebody asked for before the login."""
    return session.pop("wanted", url_for("dashboard.studies"))


def csrf_token() -> str:
    """What every form of these pages carries."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(16)
    return session["csrf"]


def log_in(name: str, password: str) -> bool:
    """Whether the password is right; then this browser is logged in. Raises RefusedError after too many attempts."""
    for key in (f"address {network(request.remote_addr)}", f"name {name}"):
        wait = current_app.extensions["study_login_limit"].wait_s(key)
        if wait:
            raise RefusedError("slow_down", f"Too many attempts to log in; please wait {wait} s.", retry_after=wait)
    right = _accounts().check(name, password)
    _note(name[:64], "log in" if right else "failed login")
    if right:
        page = wanted()
        session.clear()
        session.permanent = True
        session.update(name=name, stamp=_accounts().stamp(name), wanted=page)
    return right


def log_out() -> None:
    """Forget who was here."""
    session.clear()


def _note(name: str, action: str) -> None:
    Admin(current_app.extensions["study_database"], current_app.config["CLOCK"], actor=name).note(action)


def _is_ours() -> bool:
    sent = request.form.get("csrf") or request.headers.get("X-CSRF", "")
    return hmac.compare_digest(sent.encode(), session.get("csrf", "").encode()) and "csrf" in session


def _accounts() -> Accounts:
    return current_app.extensions["study_accounts"]
