"""The human study: a Flask application that serves two-alternative forced-choice trials."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from flask import Flask

from sr3eval.errors import UserError
from study_app import commands, routes, web
from study_app.admin import Admin
from study_app.clock import system_clock
from study_app.database import Database
from study_app.service import Service

BODY_LIMIT = 16 * 1024


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the application: defaults, then environment variables STUDY_<KEY>, then `config`.

    Keys: DATABASE_URL (a file in the instance folder), SECRET_KEY (made and kept there), DURABLE (true; false is faster
    for simulations), COOKIE_SECURE (false; set it behind TLS), STARTS_PER_HOUR of an address and REQUESTS_PER_SECOND of
    a session (None: no limit), CLOCK. A bad one is a click.ClickException.
    """
    app = Flask(__name__)
    app.config.update(
        DATABASE_URL=f"sqlite:///{Path(app.instance_path) / 'study.sqlite'}",
        MAX_CONTENT_LENGTH=BODY_LIMIT,
        DURABLE=True,
        COOKIE_SECURE=False,
        STARTS_PER_HOUR=30,
        REQUESTS_PER_SECOND=20,
        CLOCK=system_clock,
    )
    app.config.from_prefixed_env("STUDY")
    app.config.update(config or {})
    try:
        check(app.config)
        database = Database(app.config["DATABASE_URL"], app.config["DURABLE"])
    except UserError as error:
        raise click.ClickException(str(error)) from None  # of which Flask's command line prints one line
    if not app.config["SECRET_KEY"]:
        app.config["SECRET_KEY"] = kept_secret(Path(app.instance_path) / "secret_key")
    app.extensions["study_database"] = database
    app.extensions["study_service"] = Service(database, app.config["CLOCK"])
    app.extensions["study_admin"] = Admin(database, app.config["CLOCK"])
    web.install(app)
    app.register_blueprint(routes.study)
    app.cli.add_command(commands.study)
    return app


def check(config: Mapping[str, Any]) -> None:
    """Raise UserError for a switch or a number that an environment variable spells in another way than JSON does."""
    for key in ("DURABLE", "COOKIE_SECURE", "STARTS_PER_HOUR", "REQUESTS_PER_SECOND"):
        if isinstance(config[key], str):
            raise UserError(f"STUDY_{key}={config[key]}: write true, false, null or a number")


def kept_secret(path: Path) -> str:
    """The secret in a file that only its owner reads, made by whichever process comes first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
    temporary.touch(mode=0o600)
    temporary.write_text(secrets.token_hex(32))
    try:
        os.link(temporary, path)  # whole or not at all, and never over another's
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_text()
