"""The application below a path of somebody's server, such as https://lab.example/studies."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Prefixed:
    """WSGI: `app` makes addresses below `prefix`, whether the proxy passes that path on or cuts it off."""

    def __init__(self, app: "WSGIApplication", prefix: str) -> None:
        self.app, self.prefix = app, prefix

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == self.prefix or path.startswith(f"{self.prefix}/"):
            environ["PATH_INFO"] = path[len(self.prefix) :]
        environ["SCRIPT_NAME"] = self.prefix
        return self.app(environ, start_response)
