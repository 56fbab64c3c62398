"""The first page of the site: which studies can be taken."""

from flask import Blueprint, current_app, render_template
from sqlalchemy import select

from study_app import web
from study_app.models import Study
from study_app.sessions import spec_of

home = Blueprint("home", __name__)


@home.get("/")
def studies() -> str:
    """The open studies that anybody can take; those for invited people alone are not named."""
    with current_app.extensions["study_database"].read() as db:
        running = db.scalars(select(Study).where(Study.state == "running").order_by(Study.id)).all()
        specs = [(study.slug, spec_of(study.config_toml)) for study in running]
    found = [(web.base(slug), spec.title, spec.language) for slug, spec in specs if spec.recruitment.source == "open"]
    return render_template("home.html", title=web.gettext("Studies of pictures"), studies=found)
