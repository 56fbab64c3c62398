// Requests to the server. A lost connection, a restart or "slow down" is waited out; a refusal is thrown.

const TIME_LIMIT_MS = 15_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const PATIENCE_MS = 60_000;

/** Says "lost" and "back"; the page tells the person. */
export const connection = new EventTarget();

/** The server understood and said no. `code` is its word for why, such as "out_of_order". */
export class Refusal extends Error {
  constructor(status, { error, message }, retryAfterMs) {
    super(message);
    Object.assign(this, { status, code: error, retryAfterMs });
  }
}

/** A random UUID (version 4). crypto.randomUUID is missing on plain http, which a lab's own network may use. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Doubles with each attempt; the random half keeps a room full of browsers from coming back all at once. */
export function backoff(attempt) {
  const wait = Math.min(FIRST_WAIT_MS * 2 ** attempt, LONGEST_WAIT_MS);
  return wait / 2 + Math.random() * (wait / 2);
}

/** Waits, but no longer than until the browser is online again. */
export function pause(ms) {
  const online = new AbortController();
  const again = new Promise((resolve) => addEventListener("online", resolve, { signal: online.signal }));
  return Promise.race([sleep(ms), again]).finally(() => online.abort());
}

function options(method, body) {
  const headers = {
    Accept: "application/json",
    "Accept-Language": document.documentElement.lang,
    "X-CSRF": document.querySelector('meta[name="csrf"]').content,
  };
  if (body === undefined) return { method, headers, cache: "no-store" };
  return { method, headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

/** By the body (to the millisecond) or the header (seconds), in ms; undefined when the server does not say. */
function retryAfter(reply, content) {
  const seconds = reply.headers.get("Retry-After");
  return content.retry_after_ms ?? (seconds === null ? undefined : 1000 * Number(seconds));
}

async function attemptOnce(method, path, body) {
  const reply = await fetch(path, { ...options(method, body), signal: AbortSignal.timeout(TIME_LIMIT_MS) });
  const content = reply.status === 204 ? null : await reply.json();
  if (!reply.ok) throw new Refusal(reply.status, content, retryAfter(reply, content));
  return content;
}

/** Whether the same request may succeed soon. */
function passes(error) {
  if (!(error instanceof Refusal)) return true; // no connection, or not our server's words
  if (error.retryAfterMs > PATIENCE_MS) return false;
  return error.code === "too_early" || error.status === 429 || error.code === "busy";
}

/** The reply's JSON. Ends only with an answer or a Refusal. */
export async function request(method, path, body) {
  for (let attempt = 0; ; attempt++) {
    try {
      const content = await attemptOnce(method, path, body);
      connection.dispatchEvent(new Event("back"));
      return content;
    } catch (error) {
      if (!passes(error)) throw error;
      if (error.code !== "too_early") connection.dispatchEvent(new Event("lost"));
      await pause(error.retryAfterMs ?? backoff(attempt));
    }
  }
}

/** One attempt that outlives the page (a beacon cannot carry the CSRF header); nobody hears whether it arrived. */
export function lastWord(path, body) {
  fetch(path, { ...options("POST", body), keepalive: true }).catch(() => {});
}
