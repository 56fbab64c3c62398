// The first page: the device check, then the consent, then the start of a session. Its address names who takes part,
// where the study asks for that.

import { request } from "./api.js";
import "./banner.js";
import { measure } from "./calibration.js";
import { fits, frameInterval, hasTouch, neededWindow, viewport } from "./device.js";
import { say, show } from "./screens.js";
import { base, study } from "./study.js";

const LEAVES = ["full", "expired", "taken_part"];
let frameMs = null;
let isAgreed = false;

function describeTooSmall() {
  const { width, height } = neededWindow(study);
  say("needed", `${width} × ${height}`);
  say("window", `${innerWidth} × ${innerHeight}`);
}

/** The consent is never shown where the pictures do not fit; a larger window brings it. */
function showWhatFits() {
  if (frameMs === null || isAgreed) return;
  if (!fits(study)) describeTooSmall();
  show(fits(study) ? "consent" : "too-small");
}

function start(pxPerMm) {
  const device = { ...viewport(), frame_ms: frameMs, touch: hasTouch(), px_per_mm: pxPerMm };
  return request("POST", `${base}/start${location.search}`, { consent_sha256: study.consentSha256, ...device });
}

async function agree(button) {
  button.disabled = isAgreed = true;
  const pxPerMm = study.calibration ? await measure() : null;
  try {
    location.replace((await start(pxPerMm)).next);
  } catch (refusal) {
    if (LEAVES.includes(refusal.code)) location.reload(); // the server's page says how to leave
    button.disabled = isAgreed = false;
    showWhatFits();
    say("refusal", refusal.message);
  }
}

const button = document.getElementById("agree");
button?.addEventListener("click", () => agree(button));
addEventListener("resize", showWhatFits);
addEventListener("pageshow", (event) => event.persisted && location.reload());

show("checking");
frameMs = await frameInterval();
showWhatFits();
