"""An object store in this process whose answers a test chooses: slow, wrong, or none. What it is given it keeps in memory."""

import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

#: Says of a method and a path (``/bucket/key``) with which status to answer; None: as a store would. It may take its time.
Mood = Callable[[str, str], int | None]


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who is asked hangs up now and then."""


class FakeStore:
    """Serves while entered; ``fields`` are the settings that reach it. ``port`` lets another be the same one again."""

    def __init__(self, port: int = 0) -> None:
        self.objects: dict[str, bytes] = {}
        self._notes: dict[str, dict[str, str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.mood: Mood = lambda _method, _path: None
        #: What an answer of ``mood`` says.
        self.error = b"<Error><Code>Moody</Code><Message>no</Message></Error>"
        #: Seconds that its clock is ahead.
        self.ahead = 0.0
        self._port = port
        self._server: ThreadingHTTPServer | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """Settings."""
        return {"s3": f"http://127.0.0.1:{self._port}"}

    def __enter__(self) -> "FakeStore":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = _Server(("127.0.0.1", self._port), self._handler())
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more: whoever connects is refused."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = unquote(urlsplit(self.path).path)
                store.asked.append((self.command, path))
                status = store.mood(self.command, path)
                if store._server is None:
                    self.close_connection = True
                elif status is not None:
                    self.say(status, store.error)
                elif self.command == "PUT":
                    store.objects[path] = body
                    store._notes[path] = {n: v for n, v in self.headers.items() if n.lower().startswith("x-amz-meta-")}
                    self.say(200, b"")
                elif path.count("/") == 1 or self.command == "DELETE":
                    self.say(200, b"")
                elif path in store.objects:
                    self.say(200, store.objects[path], store._notes.get(path))
                else:
                    self.say(404, b"<Error><Code>NoSuchKey</Code></Error>")

            def say(self, status: int, body: bytes, notes: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in (notes or {}).items():
                    self.send_header(name, value)
                self.send_header("ETag", '"abc"')
                self.send_header("Content-Type", "application/xml")
                self.send_header("Last-Modified", formatdate(time.time() + store.ahead, usegmt=True))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815  # named by http.server

            def log_message(self, *_: object) -> None:
                pass

        return Handler
