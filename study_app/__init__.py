"""The human study: a Flask application that serves two-alternative forced-choice trials."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from sr3eval.errors import UserError
from study_app import commands, logs, routes, settings, web
from study_app.admin import Admin
from study_app.clock import system_clock
from study_app.dashboard import routes as dashboard
from study_app.database import Database
from study_app.health import health
from study_app.home import home
from study_app.prefix import Prefixed
from study_app.preview import Preview
from study_app.service import Service
from study_app.signing import Keys

BODY_LIMIT = 16 * 1024
PLAIN = ("DURABLE", "COOKIE_SECURE", "TRUSTED_PROXIES", "STARTS_PER_HOUR", "REQUESTS_PER_SECOND")


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the application: defaults, then environment variables STUDY_<KEY> and files STUDY_<KEY>_FILE, then `config`.

    Keys: DATABASE_URL (a file in the instance folder), DATABASE_PASSWORD (where it is not in the URL), SECRET_KEY (for
    `flask …` and in debug mode made and kept in the instance folder; needed elsewhere), SECRET_KEY_FALLBACKS (older
    keys that still hold), PREFIX (the path that it lies below, such as /studies), DURABLE (true; false is faster for
    simulations), COOKIE_SECURE (false; set it behind TLS), TRUSTED_PROXIES (0; how many in front of the server name the
    client, X-Forwarded-For), STARTS_PER_HOUR of an address in an open study, else of a person, and REQUESTS_PER_SECOND
    of a session (None: no limit), CLOCK. A bad one is a click.ClickException.
    """
    app = Flask(__name__)
    app.config.update(
        DATABASE_URL=f"sqlite:///{Path(app.instance_path) / 'study.sqlite'}",
        DATABASE_PASSWORD=None,
        PREFIX="",
        MAX_CONTENT_LENGTH=BODY_LIMIT,
        DURABLE=True,
        COOKIE_SECURE=False,
        TRUSTED_PROXIES=0,
        STARTS_PER_HOUR=30,
        REQUESTS_PER_SECOND=20,
        CLOCK=system_clock,
    )
    app.config.from_prefixed_env("STUDY")
    try:
        settings.read_files(app.config, os.environ)
        app.config.update(config or {})
        settings.check_plain(app.config, PLAIN)
        settings.check_fallbacks(app.config["SECRET_KEY_FALLBACKS"])
        settings.check_prefix(app.config["PREFIX"])
        url = settings.with_password(app.config["DATABASE_URL"], app.config["DATABASE_PASSWORD"])
        database = Database(url, app.config["DURABLE"])
        app.extensions["study_key_is_given"] = bool(app.config["SECRET_KEY"])
        app.config["SECRET_KEY"] = settings.secret_key(app.config, Path(app.instance_path))
    except UserError as error:
        raise click.ClickException(str(error)) from None  # of which Flask's command line prints one line
    app.extensions["study_database"] = database
    keys = Keys(app.config["SECRET_KEY"], app.config["SECRET_KEY_FALLBACKS"] or ())
    app.extensions["study_keys"] = keys
    app.extensions["study_service"] = Service(database, app.config["CLOCK"], keys)
    app.extensions["study_preview"] = Preview(database, app.config["CLOCK"], keys)
    app.extensions["study_admin"] = Admin(database, app.config["CLOCK"])
    if hops := app.config["TRUSTED_PROXIES"]:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    web.install(app)
    logs.leave_people_out()
    app.register_blueprint(routes.study)
    app.register_blueprint(routes.study, name=web.PREVIEW, url_prefix="/admin/<slug>/preview")
    app.register_blueprint(health)
    app.register_blueprint(home)
    dashboard.install(app)
    app.cli.add_command(commands.study)
    if app.config["PREFIX"]:
        app.wsgi_app = Prefixed(app.wsgi_app, app.config["PREFIX"])  # type: ignore[method-assign]
    return app
