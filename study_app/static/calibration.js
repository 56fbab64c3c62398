// CSS pixels a millimetre of this screen, by a card held against it: ISO/IEC 7810, ID-1, as bank cards are.

import { show } from "./screens.js";

const LONG_MM = 85.6;
const SHORT_MM = 53.98;
const UPRIGHT_BELOW = 600; // CSS px of room: a telephone held upright has a card's short side across
const SMALLEST = 100; // CSS px of the long side
const BEGIN = 0.5; // of the largest: wrong on most screens, so that somebody has to measure

/** Lays the frame out for the room there is; `set(long)` sizes it, in CSS px of its long side. */
function layOut(room, frame, slider) {
  const upright = room.clientWidth < UPRIGHT_BELOW;
  const longest = upright ? (room.clientWidth * LONG_MM) / SHORT_MM : room.clientWidth;
  Object.assign(slider, { min: SMALLEST, max: Math.floor(longest) });
  const set = (long) => {
    slider.value = long;
    const short = (slider.value * SHORT_MM) / LONG_MM;
    Object.assign(frame.style, {
      width: `${upright ? short : slider.value}px`,
      height: `${upright ? slider.value : short}px`,
    });
  };
  set(BEGIN * longest);
  return { upright, set };
}

/** Dragging the corner; both sides keep their ratio. */
function drag(corner, frame, upright, set) {
  corner.addEventListener("pointerdown", (event) => {
    corner.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  corner.addEventListener("pointermove", (event) => {
    if (!corner.hasPointerCapture(event.pointerId)) return;
    const { left, top } = frame.getBoundingClientRect();
    set(upright ? event.clientY - top : event.clientX - left);
  });
}

/** Resolves to CSS px a mm, or to null where somebody has no card. */
export async function measure() {
  show("calibration");
  const root = document.getElementById("calibration");
  const [room, frame, corner, slider] = [".measure", ".frame", ".corner", "input"].map((name) => root.querySelector(name));
  const [done, skip] = [root.querySelector("button.main"), root.querySelector("[data-skip]")];
  const { upright, set } = layOut(room, frame, slider);
  const changed = (long) => {
    set(long);
    done.disabled = false;
  };
  drag(corner, frame, upright, changed);
  slider.addEventListener("input", () => changed(slider.value));
  return new Promise((resolve) => {
    done.addEventListener("click", () => resolve(slider.value / LONG_MM));
    skip.addEventListener("click", () => resolve(null));
  });
}
