// What takes a person's eyes away while the pictures are up: a hidden tab, another window.

/** Counts from its making until `stop`, which returns {hidden_ms, blur_count}. */
export class Attention {
  #hidden = 0;
  #hiddenSince = document.hidden ? performance.now() : null;
  #blurs = 0;
  #listeners = new AbortController();

  constructor() {
    const { signal } = this.#listeners;
    document.addEventListener("visibilitychange", (event) => this.#turn(event.timeStamp), { signal });
    addEventListener("blur", () => this.#blurs++, { signal });
  }

  #turn(now) {
    if (this.#hiddenSince !== null) this.#hidden += now - this.#hiddenSince;
    this.#hiddenSince = document.hidden ? now : null;
  }

  stop() {
    this.#listeners.abort();
    this.#turn(performance.now());
    return { hidden_ms: this.#hidden, blur_count: this.#blurs };
  }
}
