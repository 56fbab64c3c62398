"""What docs/deploy.md says, with the image's start script, real gunicorn, PostgreSQL and nginx in their defaults."""

import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from study_servers import ROOT, SECRET, Application, free_port
from threadpoolctl import threadpool_info, threadpool_limits

from study_app import create_app
from study_app.bots import HttpBot
from study_app.browser import Browser
from study_app.clock import system_clock
from study_app.database import Database
from study_app.deploy import __main__ as deploy
from study_app.preview import Preview
from study_app.settings import kept_secret
from study_app.signing import Keys
from tests.study_app.conftest import new_database
from tests.study_app.servers import DEPLOY, Nginx, certificate, compose, from_template
from tests.study_app.small_study import everything, make_app, open_study, small_spec

QUICK = small_spec(images=4, per_subject=2, practice=1, catch=0, catch_pass=0, exposures_ms=(260,), fixation_ms=0)
TRIALS = QUICK.practice + QUICK.per_subject + QUICK.catch


class QuickBot(HttpBot):
    def thinking_ms(self):
        return 5.0


def open_at(url, pack, *slugs):
    app = make_app(url, system_clock)
    for slug in slugs:
        open_study(app, pack, QUICK, slug=slug)
    app.extensions["study_database"].engine.dispose()


def take_part(browser, slug="study", prefix="", seed=0):
    """One subject from the first page to the completion code."""
    bot = QuickBot(browser, slug, random.Random(f"{slug} {seed}"), prefix)
    bot.enter()
    reply = bot.start()
    assert (reply.status_code, reply.json) == (201, {"next": f"{prefix}/s/{slug}/run"})
    assert browser.get(reply.json["next"]).status_code == 200
    assert bot.take(lambda trial: "left")
    assert len(bot.acknowledged) == TRIALS
    assert re.search(r"[2-9a-z]{12}", browser.get(f"{prefix}/s/{slug}/done").text)
    assert {cookie["path"] for cookie in browser.cookies.values()} == {f"{prefix}/s/{slug}"}
    browser.close()


def test_the_server_computes_in_one_thread(tmp_path, monkeypatch):
    """Of BLAS, whose threads else spin against those that answer subjects."""
    monkeypatch.setenv("STUDY_SECRET_KEY", SECRET)
    monkeypatch.setenv("STUDY_DATABASE_URL", f"sqlite:///{tmp_path / 's.sqlite'}")
    with threadpool_limits(2):
        assert {pool["num_threads"] for pool in threadpool_info()} == {2}
        deploy.ready().extensions["study_database"].engine.dispose()
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}


def test_previews_go_with_the_server(start, tmp_path):
    url = f"sqlite:///{tmp_path / 'study.sqlite'}"
    app = start(Application(tmp_path, url))
    folder = Preview(Database(url), system_clock, Keys(SECRET)).folder
    folder.mkdir()
    (folder / "preview.sqlite").write_bytes(b"copies")
    app.process.send_signal(signal.SIGTERM)
    # A worker that is still starting hears no signal: gunicorn kills it after 30 s.
    assert app.process.wait(90) == 0 and not folder.exists()


@pytest.fixture
def start(request):
    """Starts servers, which end with the test."""

    def start(server):
        request.addfinalizer(server.stop)
        return server.start() if isinstance(server, Application) else server

    return start


def test_nginx_in_its_defaults_passes_on_a_study(start, pack, tmp_path, chromium):
    """`proxy_pass` alone changes the Host, which no Origin matches then. Studies may be called what the API is."""
    url = f"sqlite:///{tmp_path / 'study.sqlite'}"
    open_at(url, pack, "i", "api")
    app, port = start(Application(tmp_path, url)), free_port()
    server = f"server {{ listen {port}; location / {{ proxy_pass http://127.0.0.1:{app.port}; }} }}"
    start(Nginx(tmp_path / "nginx", port, server))
    for slug in ("i", "api"):
        take_part(Browser(f"http://127.0.0.1:{port}"), slug)
    page = chromium.new_page()
    page.goto(f"http://127.0.0.1:{port}/s/i")
    page.click("#agree")
    page.wait_for_url("**/s/i/run")
    page.wait_for_selector("#instructions:visible")
    page.close()


@pytest.mark.parametrize("way", ["cut off", "passed on"])
def test_a_study_lies_below_a_path(way, start, pack, tmp_path, chromium):
    url = f"sqlite:///{tmp_path / 'study.sqlite'}"
    open_at(url, pack, "study")
    app, port = start(Application(tmp_path, url, STUDY_PREFIX="/lab/studies")), free_port()
    slash = "/" if way == "cut off" else ""  # at the end of proxy_pass, it takes the location off the path
    server = f"location /lab/studies/ {{ proxy_pass http://127.0.0.1:{app.port}{slash}; }}"
    start(Nginx(tmp_path / "nginx", port, f"server {{ listen {port}; {server} }}"))
    take_part(Browser(f"http://127.0.0.1:{port}"), prefix="/lab/studies")
    page = chromium.new_page()
    lost = []
    page.on("response", lambda response: response.status < 400 or lost.append(response.url))
    page.goto(f"http://127.0.0.1:{port}/lab/studies/s/study")
    page.click("#agree")
    page.wait_for_url("**/lab/studies/s/study/run")
    page.wait_for_selector("#instructions:visible")
    page.close()
    assert lost == []


def test_what_compose_starts_serves_a_study_over_tls(start, request, pack, tmp_path):
    """The application's settings and nginx's are those of compose.yaml; only hosts, ports and files are the test's."""
    request.param = "postgresql"
    url = new_database(request, tmp_path)
    open_at(url, pack, "study")
    services = compose()["services"]
    for name in ("secret_key", "database_password"):
        (tmp_path / name).write_text(SECRET + "\n")
    settings = {name: in_test(value, tmp_path) for name, value in services["app"]["environment"].items()}
    settings |= {"STUDY_DATABASE_URL": url, "STUDY_PREFIX": "/studies", "STUDY_SECRET_KEY": ""}
    app = start(Application(tmp_path, url, **settings))
    tls, ports = certificate(tmp_path), [free_port(), free_port()]
    values = services["proxy"]["environment"] | {"STUDY_APP": f"127.0.0.1:{app.port}", "STUDY_PREFIX": "/studies"}
    values |= {"STUDY_TLS": str(tmp_path), "STUDY_HTTP": str(ports[0]), "STUDY_HTTPS": str(ports[1])}
    nginx = start(Nginx(tmp_path / "nginx", ports[1], from_template(values)))
    browser = Browser(f"https://localhost:{ports[1]}", tls)
    take_part(browser, prefix="/studies")
    assert all(cookie["secure"] for cookie in browser.cookies.values())
    assert browser.get("/studies/healthz").json == {"database": "ok"}
    moved = Browser(f"http://127.0.0.1:{ports[0]}").get("/studies/s/study")
    assert (moved.status_code, moved.headers["Location"]) == (301, "https://127.0.0.1/studies/s/study")
    logged = nginx.log.read_text() + app.log.read_text()
    assert "127.0.0.1" not in logged.replace(f"Listening at: http://127.0.0.1:{app.port}", "")
    assert len(everything(url)["response"]) == TRIALS


def in_test(value, folder):
    """A setting of compose.yaml with its secrets here, and without what is chosen from outside."""
    return str(value).replace("/run/secrets", str(folder))


def test_the_image_is_made_of_what_is_here():
    lines = (DEPLOY / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", lines, re.MULTILINE) for name in line.split()}
    allowed = set(re.findall(r"^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    assert copied == allowed and all((ROOT / name).exists() for name in copied)
    assert 'CMD ["python", "-m", "study_app.deploy"]' in lines
    described = compose()
    assert set(described["services"]) == {"database", "app", "proxy"}
    used = {name for service in described["services"].values() for name in service["secrets"]}
    assert used == set(described["secrets"])


REFUSED = {
    "no secret": ({"STUDY_SECRET_KEY": None}, "STUDY_SECRET_KEY is missing"),
    "a short secret": ({"STUDY_SECRET_KEY": "changeme"}, "shorter than 32 characters"),
    "no file": ({"STUDY_SECRET_KEY": None, "STUDY_SECRET_KEY_FILE": "/nowhere/key"}, "No such file or directory"),
    "a secret twice": ({"STUDY_SECRET_KEY_FILE": "/nowhere/key"}, "are both set"),
    "no prefix": ({"STUDY_PREFIX": "studies/"}, "write a path such as /studies"),
    "a prefix in use": ({"STUDY_PREFIX": "/s"}, "write a path such as /studies"),
    "no database": ({"STUDY_DATABASE_URL": "postgresql+psycopg://study@/study?host=/nowhere"}, "connection"),
    "an empty secret": ({"STUDY_SECRET_KEY": None, "STUDY_SECRET_KEY_FILE": "/dev/null"}, "is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_server_does_not_start_without_what_it_needs(case, tmp_path, monkeypatch):
    changes, message = REFUSED[case]
    settings = {"STUDY_SECRET_KEY": SECRET, "STUDY_DATABASE_URL": f"sqlite:///{tmp_path / 's.sqlite'}"} | changes
    monkeypatch.delenv("FLASK_RUN_FROM_CLI", raising=False)
    for name, value in settings.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(deploy.Server, "run", lambda server: pytest.fail("it starts"))
    result = CliRunner().invoke(deploy.main, [])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ") and result.output.count("\n") == 1 and message in result.output
    assert "changeme" not in result.output


def test_any_server_needs_the_secret_outside_debug_mode(tmp_path, monkeypatch):
    monkeypatch.delenv("FLASK_RUN_FROM_CLI", raising=False)
    monkeypatch.delenv("STUDY_SECRET_KEY", raising=False)
    monkeypatch.setattr("study_app.settings.kept_secret", lambda path: kept_secret(tmp_path / "key"))
    database = {"DATABASE_URL": f"sqlite:///{tmp_path / 's.sqlite'}"}
    with pytest.raises(Exception, match="STUDY_SECRET_KEY is missing"):
        create_app(database)
    keys = {create_app({**database, "DEBUG": True}).config["SECRET_KEY"] for _ in range(2)}
    assert keys == {(tmp_path / "key").read_text()}


LINK = "/s/nowhere?PROLIFIC_PID=5f3c0a9e8b7d6c5b4a392817&invitation=ada.5Zx"


def test_flask_run_logs_nobody(tmp_path):
    """Neither addresses nor what links say of people."""
    port = free_port()
    app = Application(tmp_path, f"sqlite:///{tmp_path / 's.sqlite'}")
    command = [sys.executable, "-m", "flask", "--app", "study_app", "run", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=app.environment)
    try:
        assert Browser(f"http://127.0.0.1:{port}", patience_s=30).get(LINK).status_code == 404
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
    (request,) = (line for line in (tmp_path / "log").read_text().splitlines() if "GET /s/nowhere" in line)
    assert request.startswith("- - - [") and time.strftime("%Y") in request
    assert request.split("GET ")[1].startswith("/s/nowhere HTTP/1.1")


def test_gunicorn_logs_nobody(start, tmp_path):
    server = start(Application(tmp_path, f"sqlite:///{tmp_path / 's.sqlite'}"))
    assert Browser(server.url).get(LINK).status_code == 404
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"GET {LINK}\r\n\r\n".encode())  # what it cannot read it repeats
        assert b"400 Bad Request" in connection.recv(1000)
    server.stop()
    told = server.log.read_text().partition("Invalid request from ip=-: ")[2]
    assert "/s/nowhere" in told and not re.search("127.0.0.1|PROLIFIC|5f3c|invitation|ada", told)
