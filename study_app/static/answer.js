// One answer by key, mouse or touch. What comes before the question is open is counted, not taken.

import { choiceOfKey } from "./keys.js";

/** A button pressed by the keyboard clicks without a pointer; a pen is used like a finger. */
const inputOf = ({ pointerType }) => ({ "": "key", mouse: "mouse" })[pointerType ?? ""] ?? "touch";

/** Listens from its making; `made` resolves to {choice, input, at}, `at` being the event's own time stamp in ms. */
export class Answer {
  early = 0;
  #openAt = Infinity;
  #choices;
  #listeners = new AbortController();
  #resolve;

  constructor(buttons) {
    this.made = new Promise((resolve) => (this.#resolve = resolve));
    this.#choices = buttons.map((button) => button.dataset.choice);
    const { signal } = this.#listeners;
    addEventListener("keydown", (event) => this.#key(event), { signal });
    for (const button of buttons) {
      button.addEventListener("click", (event) => this.#take(event, button.dataset.choice, inputOf(event)), { signal });
    }
  }

  open(now) {
    this.#openAt = now;
  }

  #key(event) {
    const choice = choiceOfKey(event);
    if (!this.#choices.includes(choice) || event.repeat) return;
    event.preventDefault();
    this.#take(event, choice, "key");
  }

  #take(event, choice, input) {
    if (event.timeStamp < this.#openAt) {
      this.early++;
      return;
    }
    this.#listeners.abort();
    this.#resolve({ choice, input, at: event.timeStamp });
  }
}
