// The session: instructions, practice, trials with a break, questions. The server knows how far a person is; after
// whatever goes wrong, this page asks it and goes on from there.

import { Refusal, request, sleep } from "./api.js";
import "./banner.js";
import { fits } from "./device.js";
import { record, sendEvents, watch } from "./events.js";
import { Pictures } from "./images.js";
import { send, sendKept } from "./outbox.js";
import { say, show, untilPressed } from "./screens.js";
import { Stage } from "./stage.js";
import { offerToStop } from "./stop.js";
import { base, study } from "./study.js";
import { text } from "./texts.js";
import { runTrial } from "./trial.js";

const SESSION_OVER = [401, 410];
const OTHER_SIDE = { left: "right", right: "left" };
const VERDICTS = {
  true: { left: "correctLeft", right: "correctRight" },
  false: { left: "incorrectLeft", right: "incorrectRight" },
};
const stage = new Stage(document.getElementById("trial"), study.zoom);
const pictures = new Pictures();
let introduced = null; // the trial whose notice was read last
let instructed = false; // on this page, by the comprehension check

/** What a person reads before a trial, if anything. `previous`: the trial before it on this page. */
function noticeBefore(trial, previous, done) {
  if (!previous && instructed) return null;
  if (!previous) return done === 0 ? "instructions" : "welcome-back";
  if (trial.break_before) return "break";
  return previous.phase === "practice" && trial.phase === "test" ? "ready" : null;
}

/** Browsers want a press of a button before; who does not allow it, or cannot, goes on in the window. */
async function fillScreen() {
  if (!study.fullscreen || document.fullscreenElement) return;
  try {
    await document.documentElement.requestFullscreen();
  } catch (error) {
    record("fullscreen_refused", error.message);
  }
}

/** Once a trial, however often it is tried. */
async function introduce(trial, previous, done) {
  const notice = trial.token !== introduced && noticeBefore(trial, previous, done);
  if (notice) await untilPressed(notice);
  if (notice && !previous) await fillScreen();
  introduced = trial.token;
}

async function untilWindowFits() {
  if (fits(study)) return;
  show("too-small");
  record("too_small", `${innerWidth}x${innerHeight}`);
  while (!fits(study)) await new Promise((resolve) => addEventListener("resize", resolve, { once: true }));
}

async function untilVisible() {
  const turned = (resolve) => document.addEventListener("visibilitychange", resolve, { once: true });
  while (document.hidden) await new Promise(turned);
}

/** The bar counts all trials, the text those of practice and of the study by themselves. */
function showProgress({ done, total }, { phase, index }) {
  Object.assign(stage.root.querySelector("progress"), { value: done, max: total });
  const number = index + 1;
  const practice = text("practiceProgress", { number, total: study.nPractice });
  const test = text("progress", { number: number - study.nPractice, total: total - study.nPractice });
  say("progress", phase === "practice" ? practice : test);
}

/** The pair again, and which of the two it was; only once the server has the answer. */
async function giveFeedback(choice, correct) {
  const side = correct ? choice : OTHER_SIDE[choice];
  say("verdict", text(VERDICTS[correct][side]));
  stage.mark(side);
  stage.state = "feedback";
  const button = stage.root.querySelector(".feedback button");
  button.focus({ preventScroll: true });
  await new Promise((resolve) => button.addEventListener("click", resolve, { once: true }));
  stage.state = "blank";
}

/** Returns the trial and the state after it. */
async function oneTrial(state, previous) {
  const trial = state.window[0];
  pictures.prefetch([trial]);
  await introduce(trial, previous, state.done);
  await untilWindowFits();
  await untilVisible();
  showProgress(state, trial);
  stage.state = "blank";
  show("trial");
  const seen = () => pictures.prefetch(state.window); // not sooner: the server would not give the next ones
  const body = await runTrial(stage, trial.token, await pictures.of(trial), state, seen);
  const { correct, next } = await send(trial.token, body);
  if (correct !== null) await giveFeedback(body.choice, correct);
  return [trial, next];
}

/**
 * An answer from another tab, an expired token: the next look at the server's state sorts it out. The rest is told, such
 * as a failure of the server's own; the answer that it did not store is sent again.
 */
async function recover(error, failures) {
  if (error instanceof Refusal && SESSION_OVER.includes(error.status)) throw error;
  record(error instanceof Refusal ? "refused" : "error", error.message);
  if (error instanceof Refusal && error.status < 500 && failures < 3) return sleep(500 * (failures - 1));
  say("problem", error.message);
  await untilPressed("problem");
  return sendKept();
}

/** What is missing is said in the study's language, not in the browser's. */
function sayWhatIsMissing({ target: field }) {
  field.setCustomValidity(text("answerMissing"));
}

/** Once anything is filled in, fields are judged anew. */
function judgeAnew({ currentTarget: form }) {
  for (const field of form.querySelectorAll("input, textarea")) field.setCustomValidity("");
}

/** Shows a section until its form is sent; returns what was filled in, as [name, value]. Spaces alone are no text. */
async function untilSent(id) {
  show(id);
  const form = document.querySelector(`#${id} form`);
  const sent = new AbortController();
  const valid = (resolve) => (event) => {
    event.preventDefault();
    for (const field of form.querySelectorAll("textarea")) field.value = field.value.trim();
    if (form.reportValidity()) resolve();
  };
  const { signal } = sent;
  form.addEventListener("invalid", sayWhatIsMissing, { signal, capture: true });
  form.addEventListener("input", judgeAnew, { signal });
  await new Promise((resolve) => form.addEventListener("submit", valid(resolve), { signal }));
  sent.abort();
  return [...new FormData(form)];
}

/** The questions keep what was chosen meanwhile. */
async function readAgain() {
  await untilPressed("instructions");
  show("comprehension");
}

/** The instructions, then one attempt at the questions about them. */
async function comprehend({ attempts }) {
  await untilPressed("instructions");
  await fillScreen();
  const answers = (await untilSent("comprehension")).map(([, answer]) => answer);
  const { passed, left } = await request("POST", `${base}/api/comprehension`, { attempt: attempts + 1, answers });
  document.querySelector("#comprehension form").reset();
  say("misunderstood", passed ? "" : text(left === 1 ? "misunderstoodOnce" : "misunderstood", { left }));
  instructed = passed;
}

/** All trials that are left, after what comes before them; returns the state after them. */
async function allTrials() {
  let previous = null;
  let state = null; // as long as it is not known, the server is asked
  for (let failures = 0; ; ) {
    state ??= await request("GET", `${base}/api/next`);
    if (state.state === "comprehension") {
      await comprehend(state);
      state = null;
      continue;
    }
    if (state.state !== "trials") return state;
    try {
      [previous, state] = await oneTrial(state, previous);
      failures = 0;
    } catch (error) {
      state = null;
      pictures.prefetch([]); // whatever was wrong with them, they are fetched again
      await recover(error, ++failures);
    }
    sendEvents();
  }
}

/** The answers by question, without the empty ones. */
async function askQuestions() {
  const filled = await untilSent("questions");
  return Object.fromEntries(filled.filter(([, answer]) => answer));
}

/** The form keeps what is in it when the server refuses it. */
async function finish() {
  if (!document.getElementById("questions")) return request("POST", `${base}/api/finish`, { answers: {} });
  const button = document.querySelector("#questions form button");
  for (;;) {
    const answers = await askQuestions();
    button.disabled = true;
    await sendEvents();
    try {
      return await request("POST", `${base}/api/finish`, { answers });
    } catch (refusal) {
      if (SESSION_OVER.includes(refusal.status)) throw refusal;
      button.disabled = false;
      say("not-accepted", refusal.message);
    }
  }
}

async function session() {
  await sendKept();
  const { state } = await allTrials();
  const next = state === "questions" ? (await finish()).next : `${base}/done`;
  location.replace(next);
}

function end(error) {
  if (error instanceof Refusal && SESSION_OVER.includes(error.status)) {
    say("session-over", error.message);
    return show("session-over");
  }
  record("error", error.message);
  say("problem", error.message);
  untilPressed("problem").then(() => location.reload());
}

addEventListener("pageshow", (event) => event.persisted && location.reload());
document.querySelector("[data-again]")?.addEventListener("click", readAgain);
offerToStop(end);
watch();
session().catch(end);
