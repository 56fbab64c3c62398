// Timed viewing by animation frames. Nothing here knows of the page: a stage shows and hides, a clock gives frames.

import { median } from "./device.js";

/** From the time stamps, in ms, of every frame from the first with the pictures to the first without. */
export function timing(stamps) {
  const gaps = stamps.slice(1).map((stamp, i) => stamp - stamps[i]);
  const [on, off] = [stamps[0], stamps.at(-1)];
  return {
    t_on: on,
    t_off: off,
    exposure_ms: off - on,
    n_frames: gaps.length,
    frame_median_ms: median(gaps),
    frame_max_gap_ms: Math.max(...gaps),
  };
}

/**
 * What is changed in one frame's callback is on screen from the next frame on. So a change that shall show nearest to
 * `durationMs` is made at the first frame that is within one and a half frames of it: one until it shows, and half for
 * the nearest. All frames are counted, not only the last: the longest gap tells of a stalled or hidden page.
 */
export async function expose(stage, durationMs, frameMs, nextFrame) {
  await nextFrame();
  stage.show();
  const stamps = [await nextFrame()];
  while (stamps.at(-1) - stamps[0] < durationMs - 1.5 * frameMs) stamps.push(await nextFrame());
  stage.hide();
  stamps.push(await nextFrame());
  return timing(stamps);
}
