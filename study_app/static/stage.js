// The place where pictures appear. They are drawn while hidden; then one attribute shows or hides all of them at once.

import { cssSize, viewport } from "./device.js";

function draw(canvas, bitmap) {
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
}

function drawNoise(canvas, { width, height }) {
  canvas.width = width;
  canvas.height = height;
  const noise = new ImageData(width, height);
  const words = new Uint32Array(noise.data.buffer);
  for (let i = 0; i < words.length; i++) words[i] = 0xff000000 | (Math.random() * 0x1000000);
  canvas.getContext("2d").putImageData(noise, 0, 0);
}

export class Stage {
  #size;

  /** `root` holds a .slot[data-slot] with canvas.picture and canvas.mask for each place. */
  constructor(root, zoom) {
    Object.assign(this, { root, zoom });
    this.buttons = [...root.querySelectorAll("button[data-choice]")];
  }

  /** bitmaps: {left, right, middle?}. */
  prepare(bitmaps, masked) {
    this.#size = { w: bitmaps.left.width, h: bitmaps.left.height };
    this.masked = masked;
    this.root.style.setProperty("--picture", `${cssSize(this.#size.w, this.zoom)}px`);
    for (const [slot, bitmap] of Object.entries(bitmaps)) this.#fill(slot, bitmap);
  }

  #fill(name, bitmap) {
    const slot = this.root.querySelector(`[data-slot="${name}"]`);
    slot.style.width = `${cssSize(bitmap.width, this.zoom)}px`;
    slot.style.height = `${cssSize(bitmap.height, this.zoom)}px`;
    draw(slot.querySelector(".picture"), bitmap);
    if (this.masked) drawNoise(slot.querySelector(".mask"), bitmap);
  }

  /** One of blank, fixation, exposure, mask, response, saving or feedback: trial.css says what is visible in each. */
  set state(name) {
    this.root.dataset.state = name;
    for (const button of this.buttons) button.disabled = name !== "response";
    // The Tab key then goes to the buttons.
    if (name === "response") this.root.querySelector(".choices").focus({ preventScroll: true });
  }

  /** Points out the picture on that side while there is feedback. */
  mark(side) {
    for (const slot of this.root.querySelectorAll(".slot")) slot.toggleAttribute("data-marked", slot.dataset.slot === side);
  }

  set question(text) {
    this.root.querySelector("#question").textContent = text;
  }

  show() {
    this.state = "exposure";
  }

  hide() {
    this.state = this.masked ? "mask" : "blank";
  }

  /** The sizes that are stored with an answer. */
  geometry() {
    const { w, h } = this.#size;
    const css = { css_w: cssSize(w, this.zoom), css_h: cssSize(h, this.zoom) };
    return { ...css, natural_w: w, natural_h: h, ...viewport(), fullscreen: document.fullscreenElement !== null };
  }
}
