"""python -m study_app.deploy: check the settings, bring the tables up to date, then serve under gunicorn."""

import os
from typing import Any

import click
from flask import Flask
from gunicorn.app.base import BaseApplication
from sqlalchemy.exc import DatabaseError
from threadpoolctl import threadpool_limits

from sr3eval.errors import UserError
from study_app import create_app

SHORTEST_SECRET = 32  # characters
MEMORY = "/dev/shm"


class Server(BaseApplication):
    """gunicorn with an application that is made before its workers are forked."""

    def __init__(self, application: Flask, **options: Any) -> None:
        self.application, self.options = application, options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self.options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return self.application


@click.command()
@click.option("--bind", envvar="STUDY_BIND", default="127.0.0.1:8000", show_default=True, help="HOST:PORT or unix:FILE")
@click.option("--workers", envvar="STUDY_WORKERS", type=click.IntRange(1), default=2, show_default=True)
@click.option("--threads", envvar="STUDY_THREADS", type=click.IntRange(1), default=8, show_default=True)
def main(bind: str, workers: int, threads: int) -> None:
    """Serve the study at an address, for a proxy with TLS in front of it. Settings: docs/deploy.md."""
    # No access log, which would hold addresses. Connections are kept for longer than a proxy (60 s) keeps them.
    app = ready()
    Server(
        app,
        bind=bind,
        workers=workers,
        threads=threads,
        worker_class="gthread",
        preload_app=True,
        keepalive=75,
        worker_tmp_dir=MEMORY if os.access(MEMORY, os.W_OK) else None,  # where a worker says, often, that it lives
        control_socket_disable=True,
        on_exit=lambda _: app.extensions["study_preview"].remove(),
    ).run()


def ready() -> Flask:
    """The application, its tables up to date; click.ClickException, of one line, where it could not serve."""
    app = create_app()
    threadpool_limits(1)  # the fits of /admin are small: several threads of BLAS wait for one another for longer
    if len(app.config["SECRET_KEY"]) < SHORTEST_SECRET and not app.debug:
        raise click.ClickException(
            f"STUDY_SECRET_KEY is shorter than {SHORTEST_SECRET} characters: take the output of `openssl rand -hex 32`"
        )
    try:
        app.extensions["study_database"].engine.dispose()  # workers make connections of their own
    except UserError as error:
        raise click.ClickException(str(error)) from None
    except DatabaseError as error:
        raise click.ClickException(f"the database: {str(error.orig).splitlines()[0]}") from None
    return app


if __name__ == "__main__":
    main()
