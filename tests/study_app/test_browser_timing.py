"""Timing in a real browser: what is measured of a trial, and what is flagged."""

import pytest

from tests.study_app.browsing import answer, assert_measured, give, join, state, until


def test_keys_during_the_exposure_are_counted_and_not_taken(serve, visit):
    server, page = serve(exposures_ms=(900,)), visit()
    join(page, server)
    page.click("#instructions button")
    state(page, "exposure")
    for key in ("f", "ArrowRight", "x"):
        page.keyboard.press(key)
    assert until(page)
    assert not server.responses()
    give(page, "j")
    state(page, "feedback")
    [(_, response)] = server.responses()
    assert (response["early_attempts"], response["choice"]) == (2, "right")


def test_a_hidden_tab_is_recorded_and_the_trial_goes_on(serve, visit):
    server, page = serve(exposures_ms=(900,)), visit()
    join(page, server)
    page.click("#instructions button")
    state(page, "exposure")
    for hidden in ("true", "false"):  # the engine that tests use calls a tab visible even when it is not
        page.evaluate(
            f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});"
            "document.dispatchEvent(new Event('visibilitychange')); dispatchEvent(new Event('blur'))"
        )
        page.wait_for_timeout(150)
    answer(page)
    state(page, "feedback")
    [(_, response)] = server.responses()
    assert 150 <= response["hidden_ms"] <= 600 and response["blur_count"] == 2 and not response["timing_ok"]


def test_a_stalled_page_is_flagged(serve, visit):
    server, page = serve(exposures_ms=(900,)), visit()
    join(page, server)
    page.click("#instructions button")
    state(page, "exposure")
    page.evaluate("() => { for (const end = performance.now() + 200; performance.now() < end; ); }")
    answer(page)
    state(page, "feedback")
    [(_, response)] = server.responses()
    assert response["frame_max_gap_ms"] > 150 and not response["timing_ok"]
    assert response["n_frames"] < response["exposure_ms"] / response["frame_median_ms"] - 8  # what was dropped


def test_a_pause_before_the_pictures_does_not_shorten_them(serve, visit):
    server, page = serve(fixation_ms=100), visit()
    join(page, server)
    page.evaluate(
        """() => new MutationObserver(() => {
          if (document.getElementById("trial").dataset.state !== "fixation") return;
          requestAnimationFrame(() => { for (const end = performance.now() + 600; performance.now() < end; ); });
        }).observe(document.getElementById("trial"), { attributes: true, attributeFilter: ["data-state"] })"""
    )
    answer(page)
    state(page, "feedback")
    [(trial, response)] = server.responses()
    assert_measured(trial, response, server.spec)


SIMULATED = """async ([hz, jitter, duration]) => {
  const { expose } = await import("/static/exposure.js");
  let now = 1000, shownAt = null, hiddenAt = null, changed = null;
  const frame = 1000 / hz;
  const nextFrame = async () => {
    now += frame * (1 + jitter * (Math.random() < 0.02 ? 3 : 0));
    if (changed) changed();  // what was changed in the last frame is on screen from this one on
    changed = null;
    return now;
  };
  const stage = {
    show: () => { changed = () => { shownAt = now; }; },
    hide: () => { changed = () => { hiddenAt = now; }; },
  };
  const timing = await expose(stage, duration, frame, nextFrame);
  return { ...timing, shownAt, hiddenAt };
}"""


def test_the_exposure_ends_at_the_nearest_frame(serve, visit):
    server, page = serve(), visit()
    page.goto(server.url)
    for hz in (50, 59.94, 60, 75, 90, 120, 144, 165, 240):
        for duration in (200, 250, 1000, 3000, 6000, 12000):
            timing = page.evaluate(SIMULATED, [hz, 0, duration])
            assert (timing["shownAt"], timing["hiddenAt"]) == (timing["t_on"], timing["t_off"])
            assert abs(timing["exposure_ms"] - duration) <= 500 / hz + 1e-6
            assert timing["n_frames"] == round(timing["exposure_ms"] * hz / 1000)
            assert timing["frame_max_gap_ms"] == pytest.approx(1000 / hz)
