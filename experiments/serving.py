"""Shows a page at an address of this machine alone, made anew whenever what it shows has changed."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from eigen_jax.errors import EigenError
from eigen_jax.report.page import make_live, make_notice
from experiments.commands import show

_HOST = "127.0.0.1"
_PORTS = range(8000, 8100)  # of which the first free one is taken
_SECONDS = 1.0  # between two looks at what is shown


class ServingError(EigenError):
    """A page that cannot be served."""


class _Version(NamedTuple):
    name: str
    page: str


def serve(make: Callable[[], str], version: Callable[[], str], *, ports: range = _PORTS) -> None:
    """Serves the page that `make` gives until Ctrl-C, and shows where; it is made again when `version` has changed.

    An EigenError in making it again is shown in its place. Raises ServingError where no port is free.
    """
    name = version()
    current = _Version(name, make_live(make(), name))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Another name for this machine is that of a foreign page, which must not read this one.
            if self.headers.get("Host") not in {f"{host}:{server.server_port}" for host in ("localhost", _HOST)}:
                self.send_error(403)
            elif self.path == "/":
                self._answer("text/html", current.page)
            elif self.path == "/version":
                self._answer("text/plain", current.name)
            else:
                self.send_error(404)

        def _answer(self, kind: str, text: str) -> None:
            content = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass  # which would tell of every look at the version

    server = _open(Handler, ports)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    show(f"http://localhost:{server.server_port} shows it and follows it; Ctrl-C ends that")
    try:
        while True:
            time.sleep(_SECONDS)
            if (name := version()) != current.name:
                current = _Version(name, make_live(_page_or_notice(make), name))
    except KeyboardInterrupt:
        show("")
    finally:
        server.shutdown()
        server.server_close()


def _page_or_notice(make: Callable[[], str]) -> str:
    try:
        return make()
    except EigenError as error:
        return make_notice(str(error))


def _open(handler: type[BaseHTTPRequestHandler], ports: range) -> ThreadingHTTPServer:
    for port in ports:
        try:
            return ThreadingHTTPServer((_HOST, port), handler)
        except OSError as error:
            why = error.strerror
    raise ServingError(f"ports {ports[0]} to {ports[-1]} of {_HOST} cannot be had ({why}); end what holds one of them")
