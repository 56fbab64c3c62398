"""Many at once, on both databases: every place is held once, every answer is stored once."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select

from study_app.bots import Bot
from study_app.models import Condition, PlanSlot, Response, Session
from study_app.recruitment import Codes, Recruitment
from tests.study_app.small_study import make_app, open_study, small_spec

THREADS = 8


def test_a_burst_of_starts_holds_every_place_once_and_evenly(url, clock, pack):
    app = make_app(url, clock)
    open_study(app, pack, small_spec())  # 2 conditions x 6 places

    def begin(seed):
        bot = Bot(app, "study", clock, random.Random(seed))
        if (reply := bot.enter()).status_code != 200:
            return [reply.status_code] * 2
        return [bot.start().status_code for _ in range(2)]

    with ThreadPoolExecutor(THREADS) as pool:
        first = list(pool.map(begin, range(9)))
        assert first == [[201, 200]] * 9
        assert sorted(taken(app)) == [4, 5]
        rest = list(pool.map(begin, range(9, 18)))
    assert Counter(status for status, _ in rest) == {201: 3, 503: 6}
    assert taken(app) == [6, 6]
    app.extensions["study_database"].engine.dispose()


def test_one_person_in_many_browsers_at_once_gets_one_place(url, clock, pack):
    app = make_app(url, clock)
    open_study(app, pack, small_spec(recruitment=Recruitment("prolific", codes=Codes("C1", "F1"))))
    bots = [Bot(app, "study", clock, random.Random(seed)) for seed in range(16)]
    for bot in bots:
        assert bot.enter("?PROLIFIC_PID=5f3c0a9e8b7d6c5b4a392817&STUDY_ID=s&SESSION_ID=a").status_code == 200
    with ThreadPoolExecutor(THREADS) as pool:
        statuses = list(pool.map(lambda bot: bot.start().status_code, bots))
    assert Counter(statuses) == {201: 1, 200: 15}
    with app.extensions["study_database"].read() as db:
        assert db.scalar(select(func.count(Session.id))) == 1
    # Whoever came last has it; the other browsers are told that they take no part.
    assert Counter(bot.client.get("/s/study/api/next").status_code for bot in bots) == {200: 1, 401: 15}
    app.extensions["study_database"].engine.dispose()


def test_a_place_is_kept_by_who_comes_back_or_given_to_somebody_else(url, clock, pack):
    app = make_app(url, clock)
    open_study(app, pack, small_spec(), models=["sr3"])  # 6 places
    people = [Bot(app, "study", clock, random.Random(seed)) for seed in range(12)]
    for bot in people[:6]:
        bot.enter()
        assert bot.start().status_code == 201
    clock.advance(46 * 60_000)
    ready = [(bot, trial := bot.upcoming()["window"][0], bot.fetch(trial)) for bot in people[:6]]
    for bot in people[6:]:
        assert bot.enter().status_code == 200
    come_back = [lambda who=who: who[0].show(*who[1:]).status_code for who in ready]
    come_new = [lambda bot=bot: bot.start().status_code for bot in people[6:]]
    assert (come_back.pop()(), come_new.pop()(), come_back.pop(0)()) == (
        200,
        201,
        410,
    )  # the first was away for longest
    at_once = [call for both in zip(come_back, come_new, strict=False) for call in both]
    with ThreadPoolExecutor(THREADS) as pool:
        statuses = list(pool.map(lambda call: call(), at_once))
    back, new = Counter(statuses[::2]), Counter(statuses[1::2])
    assert back.keys() <= {200, 410} and new.keys() <= {201, 503} and back[410] == new[201]
    with app.extensions["study_database"].read() as db:
        assert Counter(db.scalars(select(Session.state))) == {"active": 6, "expired": 1 + new[201]}
        assert db.scalar(select(func.count(PlanSlot.id)).where(PlanSlot.is_free)) == 0
    app.extensions["study_database"].engine.dispose()


def taken(app):
    """Live sessions by condition, each on a place of its own."""
    query = select(func.count(Session.id), func.count(Session.slot_id.distinct())).join(Session.slot)
    with app.extensions["study_database"].read() as db:
        rows = db.execute(query.join(PlanSlot.condition).group_by(Condition.id)).all()
    assert all(sessions == places for sessions, places in rows)
    return [sessions for sessions, _ in rows]


def test_an_answer_sent_many_times_in_parallel_is_one_row(url, clock, pack):
    app = make_app(url, clock)
    open_study(app, pack, small_spec())
    bot = Bot(app, "study", clock, random.Random(0))
    bot.enter()
    bot.start()
    trial = bot.upcoming()["window"][0]
    path = f"/s/study/api/trials/{trial['token']}"
    bot.show(trial, bot.fetch(trial))
    clock.advance(3500)
    bodies = [bot.measured(trial, 3000, side, 500.0) for side in ("left", "right")]

    def send(body):
        client = app.test_client()
        client.set_cookie("study", bot.client.get_cookie("study", path="/s/study").value, path="/s/study")
        return client.post(f"{path}/response", json=body, headers={"X-CSRF": bot.csrf}).status_code

    with ThreadPoolExecutor(THREADS) as pool:
        statuses = list(pool.map(send, bodies * 8))
    stored = {send(body): i for i, body in enumerate(bodies)}
    assert sorted(stored) == [200, 409]
    assert [status == 200 for status in statuses] == [i % 2 == stored[200] for i in range(16)]
    with app.extensions["study_database"].read() as db:
        assert db.scalars(select(Response.choice)).all() == [bodies[stored[200]]["choice"]]
    app.extensions["study_database"].engine.dispose()
