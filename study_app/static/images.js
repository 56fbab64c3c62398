// Pictures are fetched and decoded ahead of their trials, a few at a time, and kept as bitmaps until they are shown.

import { backoff, pause, Refusal, sleep } from "./api.js";
import { text } from "./texts.js";

const LANES = 4;
const TRIES = 6;

let free = LANES;
const queue = [];

async function inLane(work) {
  if (free > 0) free--;
  else await new Promise((resolve) => queue.push(resolve));
  try {
    return await work();
  } finally {
    if (queue.length) queue.shift()();
    else free++;
  }
}

async function fetchOnce(path) {
  const reply = await fetch(path, { cache: "no-store" });
  const message = text("pictureMissing", { status: reply.status });
  if (!reply.ok) {
    const { error, retry_after_ms: wait } = await reply.json().catch(() => ({}));
    throw new Refusal(reply.status, { error, message }, wait);
  }
  return { blob: await reply.blob(), receipt: reply.headers.get("X-Receipt") };
}

async function fetchPicture(path) {
  for (let attempt = 1; ; ) {
    try {
      return await fetchOnce(path);
    } catch (error) {
      if (error.code === "not_yet") {
        await sleep(error.retryAfterMs);
        continue;
      }
      const gone = error instanceof Refusal && error.status < 500 && error.status !== 429;
      if (gone || attempt === TRIES) throw error;
      await pause(backoff(attempt++ - 1));
    }
  }
}

/** {bitmap, receipt, decodeMs} */
async function load(path) {
  const { blob, receipt } = await inLane(() => fetchPicture(path));
  const begin = performance.now();
  const bitmap = await createImageBitmap(blob);
  return { bitmap, receipt, decodeMs: performance.now() - begin };
}

async function loadAll(pictures) {
  const names = Object.keys(pictures);
  const loaded = await Promise.all(names.map((name) => load(pictures[name])));
  const each = (what) => Object.fromEntries(names.map((name, i) => [name, loaded[i][what]]));
  return { bitmaps: each("bitmap"), receipts: each("receipt"), decodeMs: Math.max(...loaded.map(({ decodeMs }) => decodeMs)) };
}

/** The trials' pictures by token; only those of the current window are kept. */
export class Pictures {
  #loads = new Map();

  prefetch(window) {
    const wanted = new Set(window.map(({ token }) => token));
    for (const token of this.#loads.keys()) if (!wanted.has(token)) this.#drop(token);
    for (const { token, pictures } of window) {
      if (!this.#loads.has(token)) this.#begin(token, pictures);
    }
  }

  /** {bitmaps: {left, right, middle?}, receipts (likewise), decodeMs (the slowest)}; throws when one cannot be had. */
  async of({ token, pictures }) {
    try {
      return await (this.#loads.get(token) ?? this.#begin(token, pictures));
    } catch (error) {
      this.#loads.delete(token); // a second attempt fetches again
      throw error;
    }
  }

  #begin(token, pictures) {
    const loading = loadAll(pictures);
    loading.catch(() => {}); // whoever asks for it hears of it
    this.#loads.set(token, loading);
    return loading;
  }

  #drop(token) {
    const close = ({ bitmaps }) => Object.values(bitmaps).forEach((bitmap) => bitmap.close());
    this.#loads.get(token).then(close, () => {});
    this.#loads.delete(token);
  }
}
