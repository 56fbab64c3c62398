"""The addresses under /admin: each a few lines between HTTP and what the other files here know."""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    flash,
    g,
    redirect,
    render_template,
    request,
    url_for,
)
from sqlalchemy.orm import Session as Transaction
from werkzeug.wrappers import Response as BaseResponse

from sr3eval.errors import UserError
from study_app import export
from study_app.admin import DELETABLE, MOVES, the_study
from study_app.dashboard import images, login, payments, progress, rates
from study_app.models import Study
from study_app.refusal import RefusedError
from study_app.sessions import spec_of
from study_app.tally import tallies

dashboard = Blueprint("dashboard", __name__, url_prefix="/admin")
dashboard.before_request(login.check)
FILES = {
    **{table: f"{table}.csv" for table in ("responses", "choices", "sessions", "events")},
    "codebook": "codebook.json",
}


def install(app: Flask) -> None:
    """Put these pages into an app."""
    login.install(app)
    app.before_request(login.check_preview)
    app.register_blueprint(dashboard)


@dashboard.app_template_filter()
def moment(ms: int | None) -> str:
    """A time to the minute, UTC."""
    return "" if ms is None else f"{datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC):%Y-%m-%d %H:%M}"


dashboard.add_app_template_filter(payments.outcome)


@dashboard.context_processor
def _common() -> dict[str, Any]:
    return {"csrf": login.csrf_token(), "actor": g.admin.actor if "admin" in g else None}


@dashboard.get("/login")
def login_() -> str:
    """Name and password."""
    return render_template("dashboard/login.html")


@dashboard.post("/login")
def enter() -> str | BaseResponse | tuple[str, int]:
    """Log in, or say no more than that it did not work."""
    if login.log_in(request.form.get("name", ""), request.form.get("password", "")):
        return redirect(login.wanted(), 303)
    return render_template("dashboard/login.html", wrong=True), 403


@dashboard.post("/logout")
def leave() -> BaseResponse:
    """Log out."""
    login.log_out()
    return redirect(url_for(".login_"), 303)


@dashboard.get("/")
def studies() -> str:
    """All studies."""
    with _read() as db:
        return render_template("dashboard/studies.html", studies=progress.overview(db, current_app.config["CLOCK"]()))


@dashboard.get("/log")
def log() -> str:
    """What was done, in all studies and with accounts."""
    with _read() as db:
        return render_template("dashboard/log.html", entries=progress.audit(db), study=None)


@dashboard.get("/<slug>")
def study(slug: str) -> str:
    """How far the study is, and what the answers say so far."""
    with _study(slug) as (db, found):
        return _page(
            "study",
            found,
            progress=tallies(db, current_app.config["CLOCK"](), found),
            live=rates.live(db, found),
            deletable=found.state in DELETABLE,
            moves=[verb for verb, (sources, _) in MOVES.items() if found.state in sources],
        )


@dashboard.get("/<slug>/subjects")
def subjects(slug: str) -> str:
    """Everybody who began, with what the rules of exclusion say of them."""
    with _study(slug) as (db, found):
        return _page("subjects", found, subjects=progress.subjects(db, found), flags=rates.flags(db, found))


@dashboard.get("/<slug>/payments")
def payment_list(slug: str) -> str:
    """Whom to pay."""
    with _study(slug) as (db, found):
        everybody = progress.subjects(db, found)
        return _page("payments", found, subjects=everybody, median=progress.median_minutes(everybody))


@dashboard.get("/<slug>/payments.csv")
def payments_csv(slug: str) -> Response:
    """The same as a table."""
    with _study(slug) as (db, found):
        table = payments.payments_csv(progress.subjects(db, found))
    return _logged(slug, "payments", table)


@dashboard.get("/<slug>/approvals.csv")
def approvals(slug: str) -> Response:
    """The ids that Prolific's bulk approval takes."""
    with _study(slug) as (db, found):
        ids = payments.approvals(progress.subjects(db, found))
    return _logged(slug, "approvals", ids)


@dashboard.get("/<slug>/images")
def image_table(slug: str) -> str:
    """Every image with its rate and thumbnails."""
    with _study(slug) as (db, found):
        return _page("images", found, images=images.by_image(db, found, rates.counted(db, found)))


@dashboard.get("/<slug>/images/<int:stimulus>/<any(real, other):which>.png")
def thumbnail(slug: str, stimulus: int, which: str) -> Response:
    """One picture, small."""
    with _study(slug) as (db, found):
        png = images.thumbnail(db, found, stimulus, which)
    if png is None:
        abort(404)
    return Response(png, mimetype="image/png")


@dashboard.get("/<slug>/log")
def study_log(slug: str) -> str:
    """What was done with this study."""
    with _study(slug) as (db, found):
        return _page("log", found, entries=progress.audit(db, slug))


@dashboard.get("/<slug>/export/<any(responses, choices, sessions, events, codebook):table>")
def download(slug: str, table: str) -> Response:
    """A table as a file."""
    return _file(f"{slug}_{FILES[table]}", export.export(g.admin, slug, table))


@dashboard.post("/<slug>/move/<any(run, pause, close):verb>")
def move(slug: str, verb: str) -> BaseResponse:
    """Open or shut the study's door."""
    g.admin.move(slug, verb)
    return _back(slug, f"{slug} is {MOVES[verb][1]}.")


@dashboard.post("/<slug>/reopen")
def reopen(slug: str) -> BaseResponse:
    """Leave a finished session out, or all that failed the catch trials, and give the places to others."""
    code = request.form.get("code", "").strip()
    count = g.admin.reopen(slug, [code] if code else [])
    return _back(slug, f"{count} place{'' if count == 1 else 's'} free again.", "subjects")


@dashboard.post("/<slug>/delete-study")
def delete_study(slug: str) -> BaseResponse:
    """Delete all of a study."""
    g.admin.delete_study(slug, request.form.get("typed", "").strip())
    current_app.extensions["study_preview"].forget(slug)
    flash(f"{slug} is deleted.")
    return redirect(url_for(".studies"), 303)


@dashboard.post("/<slug>/delete")
def delete(slug: str) -> BaseResponse:
    """Delete what is stored about a participant of this study."""
    code = request.form.get("code", "").strip()
    erased = g.admin.delete_participant(code, slug)
    return _back(slug, f"{code} is deleted" + (", with the answers." if erased else "; the answers stay."), "subjects")


@dashboard.errorhandler(UserError)
def _impossible(error: UserError) -> BaseResponse:
    """What could not be done is said where it was tried."""
    flash(str(error), "error")
    slug = (request.view_args or {}).get("slug")
    return redirect(url_for(".study", slug=slug) if request.method == "POST" and slug else url_for(".studies"), 303)


@dashboard.errorhandler(RefusedError)
def _refused(refusal: RefusedError) -> tuple[str, int]:
    page = render_template("dashboard/login.html", refusal=refusal.message())
    return page, refusal.refusal.status


@contextmanager
def _read() -> Iterator[Transaction]:
    with g.admin.database.read() as db:
        yield db


@contextmanager
def _study(slug: str) -> Iterator[tuple[Transaction, Study]]:
    with _read() as db:
        yield db, the_study(db, slug)


def _page(name: str, study: Study, **values: Any) -> str:
    shared = {"study": study, "spec": spec_of(study.config_toml), "tab": name, "now": current_app.config["CLOCK"]()}
    return render_template(f"dashboard/{name}.html", **shared, **values)


def _back(slug: str, message: str, page: str = "study") -> BaseResponse:
    flash(message)
    return redirect(url_for(f".{page}", slug=slug), 303)


def _logged(slug: str, name: str, text: str) -> Response:
    """A CSV file; that it was taken is in the audit log."""
    g.admin.note("export", slug, name)
    return _file(f"{slug}_{name}.csv", text)


def _file(name: str, text: str) -> Response:
    kind = "application/json" if name.endswith(".json") else "text/csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, content_type=f"{kind}; charset=utf-8", headers=headers)
