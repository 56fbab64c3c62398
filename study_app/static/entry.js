// The first page: the device check, then the consent, then the start of a session.

import { request } from "./api.js";
import "./banner.js";
import { fits, frameInterval, hasTouch, neededWindow, viewport } from "./device.js";
import { say, show } from "./screens.js";
import { base, study } from "./study.js";

let frameMs = null;

function describeTooSmall() {
  const { width, height } = neededWindow(study);
  say("needed", `${width} × ${height}`);
  say("window", `${innerWidth} × ${innerHeight}`);
}

/** The consent is never shown where the pictures do not fit; a larger window brings it. */
function showWhatFits() {
  if (frameMs === null) return;
  if (!fits(study)) describeTooSmall();
  show(fits(study) ? "consent" : "too-small");
}

function start() {
  const device = { ...viewport(), frame_ms: frameMs, touch: hasTouch() };
  return request("POST", `${base}/start`, { consent_sha256: study.consentSha256, ...device });
}

async function agree(button) {
  button.disabled = true;
  try {
    location.replace((await start()).next);
  } catch (refusal) {
    say("refusal", refusal.message);
    button.disabled = false;
  }
}

const button = document.getElementById("agree");
button.addEventListener("click", () => agree(button));
addEventListener("resize", showWhatFits);
addEventListener("pageshow", (event) => event.persisted && location.reload());

show("checking");
frameMs = await frameInterval();
showWhatFits();
