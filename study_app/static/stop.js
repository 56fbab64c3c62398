// Stopping for good, from wherever a person is on the page: asked once more, in a dialog over what is there.

import { request } from "./api.js";
import { record, sendEvents } from "./events.js";
import { discard } from "./outbox.js";
import { base } from "./study.js";

const dialog = document.getElementById("stop");

function ask() {
  record("stop_asked");
  dialog.returnValue = ""; // Escape leaves it as it is
  dialog.showModal();
}

async function withdraw() {
  await sendEvents();
  const { next } = await request("POST", `${base}/withdraw`, {});
  discard();
  location.replace(next);
}

/** Lets the page's buttons ask; `failed` hears of what the server refuses. */
export function offerToStop(failed) {
  for (const button of document.querySelectorAll("[data-stop]")) button.addEventListener("click", ask);
  dialog.addEventListener("keydown", (event) => event.stopPropagation()); // a key here is no answer to the pair below
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "stop") withdraw().catch(failed);
    else record("stop_not");
  });
}
