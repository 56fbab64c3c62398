// One trial, from the fixation cross to the answer.

import { Answer } from "./answer.js";
import { request, uuid } from "./api.js";
import { Attention } from "./attention.js";
import { median, nextFrame } from "./device.js";
import { expose } from "./exposure.js";
import { base } from "./study.js";

/** Tells the server that the pictures, for which it gave a receipt, will be shown; returns for how long, in ms. */
async function start(token, receipt) {
  return (await request("POST", `${base}/api/trials/${token}/start`, { attempt: uuid(), receipt })).exposure_ms;
}

const FEWEST_FRAMES = 6; // of the fixation: the median between them survives a long gap or two, as of a hidden tab

/** At least `ms` and `frames` of a state; returns the median time between its frames. */
async function hold(stage, state, ms, frames = 1) {
  stage.state = state;
  const stamps = [await nextFrame()];
  while (stamps.at(-1) - stamps[0] < ms || stamps.length < frames) stamps.push(await nextFrame());
  return median(stamps.slice(1).map((stamp, i) => stamp - stamps[i]));
}

/** Shows the pictures, then the mask if the study has one: the timing of the pictures. */
async function view(stage, exposureMs, maskMs, frameMs, seen) {
  const attention = new Attention();
  const timing = await expose(stage, exposureMs, frameMs, nextFrame);
  const disturbances = attention.stop();
  seen();
  if (maskMs) await hold(stage, "mask", maskMs);
  return { ...timing, ...disturbances };
}

const BETWEEN_QUESTIONS_MS = 200; // so that a key pressed twice does not answer two

async function ask(stage, answer, question) {
  stage.question = question;
  stage.state = "response";
  const enabled = performance.now();
  answer.open(enabled);
  const { choice, input, at } = await answer.made;
  stage.state = "saving";
  return { choice, input, at, rt_ms: at - enabled };
}

/** The answers to all questions but the first. */
async function askFurther(stage, { questions, criteria }) {
  const further = [];
  for (let i = 1; i < questions.length; i++) {
    await hold(stage, "blank", BETWEEN_QUESTIONS_MS);
    const { choice, rt_ms } = await ask(stage, new Answer(stage.buttons), questions[i]);
    further.push({ criterion: criteria[i], choice, rt_ms });
  }
  return further;
}

/**
 * The server's clock starts before the fixation, so that no honest answer can reach it too early. `settings` is the
 * reply of GET next, `pictures` comes from images.js, `seen` is called when they are gone. Returns the body of the
 * response; throws a Refusal to start.
 */
export async function runTrial(stage, token, pictures, settings, seen) {
  stage.prepare(pictures.bitmaps, settings.mask_ms > 0);
  const exposureMs = await start(token, pictures.receipt);
  const frameMs = await hold(stage, "fixation", settings.fixation_ms, FEWEST_FRAMES);
  const answer = new Answer(stage.buttons);
  const viewing = await view(stage, exposureMs, settings.mask_ms, frameMs, seen);
  const { choice, input, at, rt_ms } = await ask(stage, answer, settings.questions[0]);
  const further = await askFurther(stage, settings);
  return {
    client_uuid: uuid(),
    choice,
    input,
    ...viewing,
    rt_ms,
    rt_from_onset_ms: at - viewing.t_on,
    ...stage.geometry(),
    decode_ms: pictures.decodeMs,
    early_attempts: answer.early,
    further,
  };
}
