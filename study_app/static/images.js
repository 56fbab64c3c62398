// A trial's pictures are fetched and decoded ahead of it, and kept as bitmaps until they are shown.

import { backoff, pause, Refusal, sleep } from "./api.js";
import { base } from "./study.js";
import { text } from "./texts.js";

const TRIES = 6;

async function fetchOnce(path) {
  const reply = await fetch(path, { cache: "no-store" });
  const message = text("pictureMissing", { status: reply.status });
  if (!reply.ok) {
    const { error, retry_after_ms: wait } = await reply.json().catch(() => ({}));
    throw new Refusal(reply.status, { error, message }, wait);
  }
  const { headers } = reply;
  return { blob: await reply.blob(), lengths: headers.get("X-Pictures"), receipt: headers.get("X-Receipt") };
}

async function fetchPictures(path) {
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

/** [name, PNG] of each: they come one after the other, as in "left=9, right=9". */
function separate(blob, lengths) {
  let end = 0;
  return lengths.split(", ").map((part) => {
    const [name, length] = part.split("=");
    const begin = end;
    end += Number(length);
    return [name, blob.slice(begin, end, "image/png")];
  });
}

async function decode([name, png]) {
  const begin = performance.now();
  const bitmap = await createImageBitmap(png);
  return { name, bitmap, ms: performance.now() - begin };
}

async function load(token) {
  const { blob, lengths, receipt } = await fetchPictures(`${base}/i/${token}`);
  const decoded = await Promise.all(separate(blob, lengths).map(decode));
  const bitmaps = Object.fromEntries(decoded.map(({ name, bitmap }) => [name, bitmap]));
  return { bitmaps, receipt, decodeMs: Math.max(...decoded.map(({ ms }) => ms)) };
}

/** The trials' pictures by token; only those of the current window are kept. */
export class Pictures {
  #loads = new Map();

  prefetch(window) {
    const wanted = new Set(window.map(({ token }) => token));
    for (const token of this.#loads.keys()) if (!wanted.has(token)) this.#drop(token);
    for (const token of wanted) if (!this.#loads.has(token)) this.#begin(token);
  }

  /** {bitmaps: {left, right, middle?}, receipt, decodeMs (the slowest)}; throws when one cannot be had. */
  async of({ token }) {
    try {
      return await (this.#loads.get(token) ?? this.#begin(token));
    } catch (error) {
      this.#loads.delete(token); // a second attempt fetches again
      throw error;
    }
  }

  #begin(token) {
    const loading = load(token);
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
