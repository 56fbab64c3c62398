// Whether the pictures fit side by side on this screen, and what the screen is like.

const FRAMES = 60;

export const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Device pixels per image pixel, always a whole number: then the screen shows the pixels of the file. */
export const scale = (zoom) => Math.max(1, Math.round(zoom * devicePixelRatio));

/** CSS pixels on screen of n image pixels. */
export const cssSize = (n, zoom) => (n * scale(zoom)) / devicePixelRatio;

/** The window that the study's pictures need side by side, in CSS px: as spec.py's needed_window. */
export function neededWindow({ sideBySide, gap, margin, around, width, height, zoom, viewportW = 0, viewportH = 0 }) {
  const across = sideBySide * cssSize(width, zoom) + (sideBySide - 1) * gap + margin;
  const down = cssSize(height, zoom) + around;
  return { width: Math.max(Math.ceil(across), viewportW), height: Math.max(Math.ceil(down), viewportH) };
}

export function fits(study) {
  const { width, height } = neededWindow(study);
  return innerWidth >= width && innerHeight >= height;
}

/** The median time between frames, in ms. Waits while the tab is hidden. */
export async function frameInterval(frames = FRAMES) {
  const gaps = [];
  for (let last = await nextFrame(), now; gaps.length < frames; last = now) {
    now = await nextFrame();
    gaps.push(now - last);
  }
  return median(gaps);
}

export const viewport = () => ({ viewport_w: innerWidth, viewport_h: innerHeight, dpr: devicePixelRatio });

export const hasTouch = () => matchMedia("(pointer: coarse)").matches;
