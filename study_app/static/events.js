// A log of what may disturb a person or the page, sent in batches. Some of it may get lost; answers are kept apart.

import { lastWord, request } from "./api.js";
import { base } from "./study.js";

const PATH = `${base}/api/events`;
const BATCH = 50;
const INTERVAL_MS = 10_000;

const waiting = [];
let sending = false;
let sequence = Date.now() * 100; // goes on after a reload

/** `t`: ms since the page's load. */
export function record(type, detail) {
  const text = detail && { detail: String(detail).slice(0, 200) };
  waiting.push({ seq: sequence++, type, t: performance.now(), ...text });
}

function take() {
  return { events: waiting.splice(0, BATCH) };
}

export async function sendEvents() {
  if (sending || !waiting.length) return;
  sending = true;
  await request("POST", PATH, take()).catch(() => {});
  sending = false;
}

export function watch() {
  document.addEventListener("visibilitychange", () => record(document.hidden ? "hidden" : "visible"));
  document.addEventListener("fullscreenchange", () => record(document.fullscreenElement ? "fullscreen" : "fullscreen_left"));
  for (const type of ["blur", "focus", "offline", "online"]) addEventListener(type, () => record(type));
  addEventListener("resize", () => record("resize", `${innerWidth}x${innerHeight}@${devicePixelRatio}`));
  addEventListener("error", (event) => record("error", event.message));
  addEventListener("unhandledrejection", (event) => record("error", event.reason));
  addEventListener("pagehide", () => waiting.length && lastWord(PATH, take()));
  if (performance.getEntriesByType("navigation")[0]?.type === "reload") record("reload");
  setInterval(sendEvents, INTERVAL_MS);
}
