"""Every page and every state of it in a browser: nothing untranslated, no barrier that axe finds.

The study's language is a made-up one, in which every text of the catalog stands in brackets; so do the researcher's own
texts. A word outside of brackets is not marked for translation.
"""

import contextlib
import random
import re
import tempfile
from dataclasses import replace

import pytest
from axe_playwright_python.base import AXE_SCRIPT as AXE
from babel.messages.pofile import write_po
from sqlalchemy import select, update

from study_app import languages
from study_app.bots import Bot
from study_app.clock import system_clock
from study_app.comprehension import Check, Comprehension
from study_app.models import Participant, Session
from study_app.recruitment import PREVIEW, Codes, Recruitment
from study_app.spec import Consent, Criterion, Question
from tests.study_app.browsing import SPEC, agree, find, give, until
from tests.study_app.test_languages import extract

TABS = ("", "/subjects", "/payments", "/images", "/log")
PASSWORD = "correct horse battery"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
CODES = Codes("1", "2", "3", "4", "5")
MTURK = "workerId=1&hitId=1&assignmentId={}&turkSubmitTo=https://www.mturk.com"
PROLIFIC = "PROLIFIC_PID=000000000000000000000001&STUDY_ID=1&SESSION_ID=1"
QUESTIONS = (
    Question("how", "⟦How⟧"),
    Question("where", "⟦Where⟧", "choice", ("⟦here⟧", "⟦there⟧")),
    Question("sure", "⟦Sure⟧", "scale", ("⟦no⟧", "⟦yes⟧"), required=True),
)
STUDY = {
    "title": "⟦Title⟧",
    "task": 1,
    "language": "de",
    "answers": (),
    "consent": Consent(contact="⟦me⟧"),
    "questions": QUESTIONS,
    "repeats": True,
}
OTHERS = {
    "full": {"target": 1},
    "models": {
        "task": 2,
        "repeats": False,
        "compare": "models",
        "tie": "⟦tie⟧",
        "skip": "⟦skip⟧",
        "criteria": (Criterion("a", "⟦A⟧"), Criterion("b", "⟦B⟧")),
    },
    "mturk": {"recruitment": Recruitment("mturk", codes=CODES), "repeats": False},
    "prolific": {"recruitment": Recruitment("prolific", codes=CODES), "repeats": False},
    "over": {},
    "asked": {
        "comprehension": Comprehension(2, (Check("⟦Clear?⟧", ("⟦yes⟧", "⟦no⟧"), "⟦yes⟧"),)),
        "calibration": True,
        "fullscreen": True,
        "repeats": False,
    },
}

SHOW = "async (id) => (await import('/static/screens.js')).show(id)"
SAY_PROBLEM = """async () => {
  const { say, show } = await import("/static/screens.js");
  show("problem");
  say("problem", (await import("/static/texts.js")).text("pictureMissing", { status: 404 }));
}"""
LOSE = "async (event) => (await import('/static/api.js')).connection.dispatchEvent(new Event(event))"
# All that people can be told, hidden or not; what is the same in every language (keys, codes) left out.
TOLD = """() => {
  const copy = document.documentElement.cloneNode(true);
  const otherwise = new DOMParser().parseFromString(copy.querySelector("noscript").textContent, "text/html");
  for (const element of copy.querySelectorAll("script, kbd, noscript")) element.remove();
  const labels = ["aria-label", "alt", "title", "placeholder"].flatMap(
    (name) => [...copy.querySelectorAll(`[${name}]`)].map((element) => element.getAttribute(name)));
  return [copy.textContent, otherwise.body.textContent, ...labels].join("\\n");
}"""


def subject_pages(server, page):
    """The name of every state, while the page is in it."""
    root = server.url.removesuffix("/s/study")

    def go(path):
        page.goto(f"{root}{path}")

    def leave(slug, link):
        go(f"/s/{slug}?{link}")
        page.click("#agree")
        page.click("#instructions [data-stop]")
        page.click("#stop [value=stop]")
        page.wait_for_url("**/done")

    go("/")
    yield "home"
    go("/nowhere")
    yield "nothing here"
    for slug in ("over", "full", "mturk"):
        go(f"/s/{slug}")
        yield f"{slug}: refused"
    go(f"/s/mturk?{MTURK.format(PREVIEW)}")
    find(page, "#consent")
    yield "preview of MTurk"
    for slug in ("study", "mturk", "prolific"):
        go(f"/s/{slug}/declined")
        yield f"{slug} declined"
    leave("mturk", MTURK.format(1))
    yield "withdrawn, with a form"
    leave("prolific", PROLIFIC)
    yield "withdrawn, with a link"
    go("/s/study/run")
    yield "not taking part"
    go("/s/models")
    find(page, "#consent")
    yield "consent of models"
    page.click("#agree")
    find(page, "#instructions")
    yield "instructions of models"
    assert until(page)
    yield "pair of models"

    go("/s/asked")
    page.click("#agree")
    find(page, "#calibration")
    yield "calibration"
    page.press("#calibration input", "ArrowRight")
    page.click("#calibration button.main")
    for name in ("instructions before questions", "instructions again"):
        find(page, "#instructions")
        yield name
        page.click("#instructions button.main")
        find(page, "#comprehension")
        yield f"questions after {name}"
        page.check("[value='⟦no⟧']")
        page.click("#comprehension button.main")
    page.wait_for_url("**/done")
    yield "not understood"
    go("/s/study")
    yield "checking"
    find(page, "#consent")
    yield "consent"
    page.set_viewport_size({"width": 400, "height": 700})
    find(page, "#too-small")
    yield "too small"
    page.set_viewport_size({"width": 1280, "height": 800})
    find(page, "#consent")
    server.admin.move("study", "pause")
    page.click("#agree")
    find(page, ".refusal")
    yield "refused"
    page.reload()
    yield "paused"
    server.admin.move("study", "run")
    agree(page, server)
    yield "instructions"
    for section in page.evaluate("[...document.querySelectorAll('main > section')].map((section) => section.id)"):
        if section != "trial":
            page.evaluate(SHOW, section)
            yield section
    page.evaluate(SAY_PROBLEM)
    yield "problem"
    page.evaluate(LOSE, "lost")
    yield "lost connection"
    page.evaluate(LOSE, "back")
    page.evaluate(SHOW, "instructions")
    page.click("#instructions [data-stop]")
    yield "asked whether to stop"
    page.keyboard.press("Escape")
    assert until(page)
    yield "response in practice"
    for state in ("fixation", "exposure", "mask", "saving"):
        page.evaluate("(state) => document.getElementById('trial').dataset.state = state", state)
        yield state
    page.evaluate("() => document.getElementById('trial').dataset.state = 'response'")
    give(page, "f")
    find(page, "#trial[data-state=feedback]")
    yield "feedback"
    assert until(page)
    yield "response"
    while until(page):
        give(page, "f")
    yield "questions"
    page.check("input[value='4']")
    page.locator("button.main:visible").click()
    page.click("#copy")
    yield "done"
    with server.app.extensions["study_database"].write() as db:
        db.execute(update(Session).where(Session.state == "finished").values(excluded_reason="failed_catch"))
    page.reload()
    yield "failed the checks"
    with server.app.extensions["study_database"].write() as db:
        db.execute(update(Session).where(Session.state == "active").values(state="expired"))
    go("/s/models")
    yield "expired"


def admin_pages(server, page):
    """The same of the researcher's pages."""
    server.app.extensions["study_accounts"].set_password("ada", PASSWORD)
    root = f"{server.url.removesuffix('/s/study')}/admin"
    page.goto(f"{root}/")
    yield "login"
    for password in ("wrong", PASSWORD):
        page.fill("[name=name]", "ada")
        page.fill("[name=password]", password)
        page.click("button.main")
        yield f"after login: {password}"
    for path in ("log", *(f"{slug}{tab}" for slug in ("study", "models", "prolific") for tab in TABS), "study/preview"):
        page.goto(f"{root}/{path}")
        yield path
        for summary in page.locator("summary").all():
            summary.click()
            yield f"{path}, opened"
    server.admin.move("models", "close")
    page.goto(f"{root}/models")
    page.click("summary")
    assert page.is_visible("[name=typed]")
    yield "a study that can be deleted"


@pytest.fixture(scope="module")
def pseudo(tmp_path_factory):
    """A catalog in which every text stands in brackets, in German's place."""
    catalog = extract(tmp_path_factory.mktemp("texts") / "study.pot")
    for message in list(catalog)[1:]:
        texts = [f"⟦{text}⟧" for text in (message.id if message.pluralizable else [message.id])]
        message.string = tuple(texts) if message.pluralizable else texts[0]
    folder = tmp_path_factory.mktemp("locale")
    with (folder / "de.po").open("wb") as file:
        write_po(file, catalog)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(languages, "LOCALE", folder)
        languages.catalog.cache_clear()
        yield
    languages.catalog.cache_clear()


def unmarked(text, codes):
    """The words outside of brackets."""
    for code in codes:
        text = text.replace(code, "")
    while (inner := re.sub(r"⟦[^⟦⟧]*⟧", "", text)) != text:
        text = inner
    return re.findall(r"[^\W\d_]+", text)


def barriers(page):
    """What axe finds: the rule, and where."""
    if page.evaluate("!window.axe"):
        page.evaluate(AXE)
    options = {"runOnly": TAGS, "resultTypes": ["violations"]}
    found = page.evaluate("(options) => axe.run(options)", options)["violations"]
    return [(rule["id"], node["target"], node["failureSummary"]) for rule in found for node in rule["nodes"]]


def test_what_is_wrong_is_found(chromium):
    with contextlib.closing(chromium.new_page()) as page:
        page.set_content(
            "<noscript></noscript>⟦Fine⟧, ⟦one ⟦in⟧ one⟧ <p style='color: #999'>Not</p><img alt='fine'> 5k7"
        )
        assert unmarked(page.evaluate(TOLD), ["5k7"]) == ["Not", "fine"]
        assert {rule for rule, *_ in barriers(page)} == {"color-contrast", "document-title", "html-has-lang"}


def test_every_page_is_translated_and_without_barriers(pseudo, serve, visit, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the preview has its database
    server = serve(**STUDY)
    for slug, changes in OTHERS.items():
        server.open(slug, replace(SPEC, **STUDY | changes))
    server.admin.move("over", "close")
    somebody = Bot(server.app, "full", system_clock, random.Random(0))
    somebody.enter()
    assert somebody.start().status_code == 201
    page = visit(locale="de", permissions=["clipboard-read", "clipboard-write"])
    words, found = {}, {}
    for name in subject_pages(server, page):
        codes = server.query(select(Participant.code)) + server.query(select(Session.completion_code))
        words[name] = unmarked(page.evaluate(TOLD), [code for (code,) in codes if code])
        found[name] = barriers(page)
    assert not {name: them for name, them in words.items() if them}
    for name in admin_pages(server, page):
        found[name] = barriers(page)
    assert len(found) > 50
    assert not {name: them for name, them in found.items() if them}
