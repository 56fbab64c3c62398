// The last page: the code to be handed in, by a button.

import { text } from "./texts.js";

const button = document.getElementById("copy");

async function copy() {
  await navigator.clipboard.writeText(document.getElementById("completion-code").textContent.trim());
  button.textContent = text("copied");
}

if (button && navigator.clipboard) {
  button.hidden = false; // elsewhere the code is selected by a click
  button.addEventListener("click", copy);
}
