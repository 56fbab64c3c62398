"""HTTP as the study's pages use it: a kept connection, cookies, and the patience of static/api.js with what passes."""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from http.cookies import Morsel, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0
TIME_LIMIT_S = 15.0
LOST = (OSError, http.client.HTTPException)  # a server that is restarted, a connection that was closed meanwhile

Record = Callable[[str, float, int], None]


@dataclass(frozen=True)
class Reply:
    """A status with its headers and content, with the names that Flask's test client gives them."""

    status_code: int
    headers: Message
    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode()

    @property
    def json(self) -> Any:
        return self.get_json()

    def get_json(self) -> Any:
        return json.loads(self.data)

    def passes(self) -> bool:
        """Whether the same request may succeed soon."""
        if self.status_code < 500:
            return self.status_code == 429
        is_json = self.headers.get_content_type() == "application/json"
        return not (is_json and self.get_json()["error"] == "full")


class Browser:
    """Requests to the server at `url` (its scheme, host and port; paths are whole). Not for several threads.

    What passes is asked again for `patience_s` seconds, then a lost connection is raised and a refusal returned.
    `record` hears of every reply: path, seconds since the request, status.
    """

    def __init__(
        self,
        url: str,
        tls: ssl.SSLContext | None = None,
        patience_s: float = 60.0,
        record: Record = lambda path, seconds, status: None,
    ) -> None:
        self.url, self.tls, self.patience_s, self.record = urlsplit(url), tls, patience_s, record
        self.cookies: dict[str, Morsel[str]] = {}
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str) -> Reply:
        return self.request("GET", path)

    def post(self, path: str, json: Any, headers: Mapping[str, str]) -> Reply:
        return self.request("POST", path, json, headers)

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """The reply, sooner or later."""
        end, wait = time.monotonic() + self.patience_s, FIRST_WAIT_S
        while True:
            try:
                reply = self._once(method, path, body, headers or {})
                if not reply.passes() or time.monotonic() > end:
                    return reply
            except LOST:
                self.close()
                if time.monotonic() > end:
                    raise
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _once(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Reply:
        if self._connection is None:
            self._connection = self._connect()
        begin = time.perf_counter()
        data = None if body is None else json.dumps(body).encode()
        self._connection.request(method, path, data, {**self._headers(method, path), **headers})
        response = self._connection.getresponse()
        reply = Reply(response.status, response.headers, response.read())
        self.record(path, time.perf_counter() - begin, reply.status_code)
        for line in reply.headers.get_all("Set-Cookie", ()):
            self.cookies.update(SimpleCookie(line))
        return reply

    def _connect(self) -> http.client.HTTPConnection:
        host, port = str(self.url.hostname), self.url.port
        if self.url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=TIME_LIMIT_S, context=self.tls)
        return http.client.HTTPConnection(host, port, timeout=TIME_LIMIT_S)

    def _headers(self, method: str, path: str) -> dict[str, str]:
        """What a browser sends along by itself."""
        found = [cookie for cookie in self.cookies.values() if path.startswith(cookie["path"])]
        headers = {"Cookie": "; ".join(f"{cookie.key}={cookie.value}" for cookie in found)} if found else {}
        if method == "POST":
            headers |= {"Origin": f"{self.url.scheme}://{self.url.netloc}", "Content-Type": "application/json"}
        if self.url.scheme == "https":
            headers["Sec-Fetch-Site"] = "same-origin"
        return headers
