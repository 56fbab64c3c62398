// Answers wait in localStorage, each under a key of its own (two tabs share it), until the server has them.

import { lastWord, request } from "./api.js";
import { base } from "./study.js";

const PREFIX = `answer:${base}:`; // of this study alone

const path = (token) => `${base}/api/trials/${token}/response`;

function kept() {
  const keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  return keys.map((key) => ({ key, ...JSON.parse(localStorage.getItem(key)) }));
}

async function deliver({ key, token, body }) {
  try {
    const reply = await request("POST", path(token), body);
    localStorage.removeItem(key);
    return reply;
  } catch (refusal) {
    if (refusal.status < 500) localStorage.removeItem(key); // for good: sending it again would change nothing
    throw refusal;
  }
}

/** The server's reply to an answer; throws a Refusal. The answer survives a reload or a crash on the way. */
export function send(token, body) {
  const key = PREFIX + body.client_uuid;
  localStorage.setItem(key, JSON.stringify({ token, body }));
  return deliver({ key, token, body });
}

/** Delivers what an earlier page load could not; refusals (answered in another tab, an older session) are final. */
export async function sendKept() {
  for (const answer of kept()) await deliver(answer).catch(() => {});
}

/** Forgets them: the session that they are of has ended. */
export const discard = () => kept().forEach(({ key }) => localStorage.removeItem(key));

addEventListener("pagehide", () => kept().forEach(({ token, body }) => lastWord(path(token), body)));
addEventListener("beforeunload", (event) => {
  if (kept().length) event.preventDefault();
});
