"""A lost connection, a reload, a second tab, a server that fails: in a real browser no answer is lost or doubled."""

from tests.study_app.browsing import agree, answer, assert_complete, find, finish, give, join, state, until


def test_a_reload_goes_on_at_the_same_trial(serve, visit):
    server, page = serve(exposures_ms=(600,)), visit()
    join(page, server)
    page.reload()
    answer(page)
    for moment in ("exposure", "response"):
        until(page, moment)
        page.reload()
        find(page, "#welcome-back")
        answer(page)
    assert_complete(server, finish(page))
    assert [trial["showings"] for trial, _ in server.responses()] == [1, 2, 2, 1, 1]
    assert server.events().count("reload") == 3


def test_answers_wait_for_the_connection(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    answer(page)
    until(page)
    page.context.set_offline(True)
    give(page, "j")
    find(page, "p.connection")
    assert len(server.responses()) == 1
    page.context.set_offline(False)
    state(page, "response")
    assert not page.locator("p.connection:visible").count()
    assert_complete(server, finish(page))
    assert server.responses()[1][1]["choice"] == "right"


def test_an_answer_whose_acknowledgement_is_lost_is_stored_once(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    attempts = []

    def lose(route):
        attempts.append(route.request.post_data)
        if len(attempts) == 1:
            route.fetch()  # the server has it
        if len(attempts) <= 2:
            route.abort()
        else:
            route.continue_()

    page.route("**/response", lose)
    answer(page)
    state(page, "feedback")
    assert len(attempts) == 3 and len(set(attempts)) == 1
    assert len(server.responses()) == 1


def test_an_answer_that_was_not_sent_survives_a_reload(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    answer(page)
    until(page)
    page.context.route("**/response", lambda route: route.abort())
    give(page, "j")
    find(page, "p.connection")
    page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"
    page.reload()
    find(page, "p.connection")
    page.context.unroute("**/response")
    find(page, "#welcome-back")
    assert [response["choice"] for _, response in server.responses()] == ["left", "right"]


def test_too_early_by_the_servers_clock_is_sent_again(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    refusal = {"error": "too_early", "message": "Too early.", "retry_after_ms": 300}
    page.route("**/response", lambda route: route.fulfill(status=409, json=refusal), times=1)
    answer(page)
    state(page, "feedback")
    assert len(server.responses()) == 1
    assert not page.locator("p.connection:visible").count()


def test_a_failure_of_the_servers_own_is_told_and_the_answer_kept(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    failure = {"error": "internal", "message": "The server could not do this."}
    page.route("**/response", lambda route: route.fulfill(status=500, json=failure), times=1)
    answer(page, "j")
    find(page, "#problem")
    assert "The server could not do this." in page.inner_text("#problem") and not server.responses()
    assert not page.locator("p.connection:visible").count()
    page.click("#problem button.main")
    assert until(page)
    assert [response["choice"] for _, response in server.responses()] == ["right"]


def test_two_tabs_answer_a_trial_once(serve, visit):
    server, first = serve(), visit()
    join(first, server)
    answer(first)
    until(first)
    second = first.context.new_page()  # comes to the front; a tab behind it gets no frames
    second.goto(f"{server.url}/run")
    answer(second, "f")
    first.bring_to_front()
    give(first, "j")  # the same trial
    until(first)
    assert [response["choice"] for _, response in server.responses()] == ["left", "left"]
    answer(first)
    second.bring_to_front()
    assert_complete(server, finish(second))
    first.bring_to_front()
    if until(first):
        give(first, "f")
    find(first, "#completion-code")


def test_back_and_forward(serve, visit):
    server, page = serve(), visit()
    page.goto("about:blank")
    agree(page, server)
    answer(page)
    page.go_back()
    assert page.url == "about:blank"
    page.go_forward()
    find(page, "#welcome-back")
    answer(page)
    page.goto(server.url)  # the first page leads back into the session
    find(page, "#welcome-back")
    assert [trial["showings"] for trial, _ in server.responses()] == [1, 1]


def test_a_picture_that_fails_is_fetched_again_or_the_failure_shown(serve, visit):
    server, page = serve(), visit()
    page.route("**/i/*", lambda route: route.abort(), times=2)
    join(page, server)
    answer(page)
    page.route("**/i/*", lambda route: route.fulfill(status=404))
    page.reload()
    page.click("#welcome-back button")
    find(page, "#problem")
    assert "404" in page.inner_text("#problem")
    page.unroute("**/i/*")
    page.click("#problem button")
    answer(page)
    until(page)
    assert len(server.responses()) == 2


def test_a_lost_session_says_so(serve, visit):
    server, page = serve(), visit()
    join(page, server)
    answer(page)
    until(page)
    page.context.clear_cookies()
    give(page, "f")
    find(page, "#session-over")
    assert "You are not taking part in this study" in page.inner_text("#session-over")
    page.reload()
    assert page.locator("h1").inner_text()
    page.click("main a")
    find(page, "#consent")
