// The progress page looks again every ten seconds, while somebody looks at it.

const INTERVAL_MS = 10_000;

async function refresh() {
  if (document.hidden) return;
  const reply = await fetch(location.pathname, { cache: "no-store" }).catch(() => null);
  if (!reply?.ok || reply.redirected) return;
  const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").getElementById("live");
  if (fresh) document.getElementById("live").replaceWith(fresh);
}

setInterval(refresh, INTERVAL_MS);
document.addEventListener("visibilitychange", refresh);
