"""Fixtures: a pack, a clock, an empty database of each kind."""

import contextlib
import threading
import uuid
from dataclasses import replace

import pytest
from study_servers import Cluster

from study_app.clock import ManualClock
from tests.study_app.browsing import SPEC, Server
from tests.study_app.small_study import write_pack


@pytest.fixture(scope="session")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(scope="session")
def postgres():
    """A temporary PostgreSQL cluster."""
    if Cluster.found() is None:
        pytest.skip("no PostgreSQL server is installed (initdb)")
    pytest.importorskip("psycopg")
    cluster = Cluster(durable=False)
    yield cluster
    cluster.remove()


def new_database(request, folder):
    """The URL of an empty database of the kind that the fixture's parameter names."""
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'study.sqlite'}"
    return request.getfixturevalue("postgres").create(f"t{uuid.uuid4().hex}")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """An empty database of each kind."""
    return new_database(request, tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def shared_url(request, tmp_path_factory):
    """One for all tests of a module that leave it as it was."""
    return new_database(request, tmp_path_factory.mktemp("shared"))


@pytest.fixture
def serve(tmp_path):
    """serve(**changes): the study, with settings changed."""
    with contextlib.ExitStack() as stack:

        def start(**changes):
            running = Server(tmp_path, replace(SPEC, **changes))
            thread = threading.Thread(target=running.server.serve_forever, args=(0.02,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(running.server.shutdown)
            return running

        yield start


@pytest.fixture
def visit(chromium):
    """visit(**options): a page in a browser profile of its own. No script may fail and nothing may break the policy."""
    complaints = []
    with contextlib.ExitStack() as stack:

        def watch(page):
            page.set_default_timeout(10_000)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda m: complaints.append(m.text) if "Content Security Policy" in m.text else None)

        def new(**options):
            context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            stack.callback(context.close)
            context.on("page", watch)
            return context.new_page()

        yield new
    assert not complaints
