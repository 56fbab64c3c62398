"""What subjects read, in the study's language: no text is missing in a catalog, and none stands outside of it."""

import random
import re
import tomllib

import pytest
from babel.messages.frontend import CommandLineInterface
from babel.messages.pofile import read_po

from sr3eval.config import from_dict, to_toml
from study_app import languages
from study_app.bots import Bot
from study_app.recruitment import Recruitment
from study_app.spec import Consent, Spec
from study_app.texts import consent
from tests.study_app.small_study import make_app, open_study, small_spec
from tests.study_app.test_spec import ROOT

HTML = {"Accept": "text/html"}


def extract(pot):
    """Every text that `make texts` finds."""
    options = ["--quiet", "extract", "--mapping-file", str(ROOT / "pyproject.toml"), "--output", str(pot), str(ROOT)]
    CommandLineInterface().run(["pybabel", *options])
    with pot.open("rb") as file:
        return read_po(file)


@pytest.mark.parametrize("language", languages.AVAILABLE[1:])
def test_a_catalog_has_every_text(language, tmp_path):
    marked = extract(tmp_path / "study.pot")
    with (languages.LOCALE / f"{language}.po").open("rb") as file:
        catalog = read_po(file, locale=language)
    assert {message.id for message in catalog} == {message.id for message in marked}  # else: make texts
    assert len(catalog) > 100
    for message in list(catalog)[1:]:
        texts = message.string if message.pluralizable else [message.string]
        assert all(texts) and not message.fuzzy, message.id
        assert not list(message.check(catalog)), message.id  # the %(places)s
        for text in texts:
            source = message.id[0] if message.pluralizable else message.id
            for part in (r"\{\w+\}", r"<.*?>"):
                assert sorted(re.findall(part, text)) == sorted(re.findall(part, source))


SENTENCE = re.compile(r"""["'`]([A-Z][a-z]+(?=[ .,:;!?"'`])[^"'`]*)""")  # what begins as one, of a word or more


def test_scripts_hold_no_text():
    """It stands in base.html, where it is translated."""
    assert SENTENCE.findall('say("Copied"), say(`Practice ${n}`); get("Accept-Language", "POST", "next")') == [
        "Copied",
        "Practice ${n}",
    ]
    scripts = [path for path in (ROOT / "study_app" / "static").glob("*.js") if path.name != "dashboard.js"]
    comment = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
    assert len(scripts) > 10
    assert not {path.name: found for path in scripts if (found := SENTENCE.findall(comment.sub("", path.read_text())))}


def test_a_german_study(pack, clock, tmp_path):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    spec = small_spec(language="de", title="Bilder", exposures_ms=(2500,))
    assert spec.asked[0].question.startswith("Welches Bild") and spec.answers == ("Links", "Rechts")
    assert spec.consent.text.startswith("Wir laden Sie ein") and spec.consent.text == consent("de") != consent()
    assert from_dict(Spec, tomllib.loads(to_toml(spec))) == spec  # as the database keeps it
    known = small_spec(language="de", recruitment=Recruitment("invited"))
    assert len(known.consent.text) > len(spec.consent.text) and "einen Code von Ihnen" in known.consent.text
    own = small_spec(language="de", answers=("Left", "Right"), consent=Consent(text="My own."))
    assert (own.answers, own.consent.text) == (("Left", "Right"), "My own.")  # as somebody wrote them
    open_study(app, pack, spec)
    bot = Bot(app, "study", clock, random.Random(0))
    entry = app.test_client().get("/s/study").text
    assert '<html lang="de">' in entry and "die Sie 2,5 Sekunden lang sehen" in entry
    bot.enter()
    assert bot.start().status_code == 201
    assert "<h1>Ihre Aufgabe</h1>" in bot.browser.get("/s/study/run").text.replace(' tabindex="-1"', "")
    german = {"Accept-Language": "de, en;q=0.5"}  # what scripts send, of their page, and what a browser is set to
    refused = app.test_client().get("/s/study/api/next", headers=german)
    assert (refused.status_code, refused.json["message"][:23]) == (401, "Sie nehmen an dieser St")
    assert "<h1>Hier ist nichts</h1>" in app.test_client().get("/nowhere", headers=german | HTML).text
    assert "Studien mit Bildern" in app.test_client().get("/", headers=german).text
    assert "Bilder</a>" in app.test_client().get("/").text
    assert '<html lang="en">' in app.test_client().get("/admin/login", headers=german).text
    app.extensions["study_database"].engine.dispose()
