"""/healthz, which a container, a proxy or a monitor asks whether to send people here."""

from flask import Blueprint, current_app
from sqlalchemy import select

from study_app.models import Study

health = Blueprint("health", __name__)


@health.get("/healthz")
def healthz() -> dict[str, str]:
    """200 while the database answers; web.py makes a 503 of a lost one, and a 500 of one of another version."""
    with current_app.extensions["study_database"].read() as db:
        db.execute(select(Study.id).limit(1))
    return {"database": "ok"}
