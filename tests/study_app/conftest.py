"""Fixtures: a pack, a clock, an empty database of each kind."""

import uuid

import pytest
from study_servers import Cluster

from study_app.clock import ManualClock
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
