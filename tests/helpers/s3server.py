"""An S3 server on loopback, moto's, whose answers a test can spoil."""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

Fault = Callable[[dict[str, Any]], int | None]
"""Given a request, a status to answer instead of the store; 0 breaks the connection off."""
Spoil = Callable[[str, bytes], bytes]
"""Given a path and the body of an answer to a GET, what to send; less breaks the connection off."""
CODES = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown"}


class S3Server:
    """A server with the objects of this process; it can be stopped and started again."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server: Any = None
        self.port = 0
        self.fault: Fault | None = None
        self.spoil: Spoil | None = None
        self.requests: list[tuple[str, str]] = []
        self.sent: Counter[str] = Counter()
        """How many bytes were sent of each object."""

    @property
    def backend(self) -> Any:
        """The objects, reached without a request."""
        return get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]

    @property
    def environment(self) -> dict[str, str]:
        """What leads the libraries here, and nowhere else."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "AWS_MAX_ATTEMPTS": "1",  # botocore's own tries take seconds each
        }

    def start(self) -> None:
        """Listen, on the port of before."""
        self._server = make_server("127.0.0.1", self.port, self._answer, threaded=True)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], respond: Any) -> Iterable[bytes]:
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        status = self.fault(environ) if self.fault else None
        if status is None:
            answer: Iterable[bytes] = self._app(environ, respond)
            if environ["REQUEST_METHOD"] != "GET":
                return answer
            body, path = b"".join(answer), environ["PATH_INFO"]
            if self.spoil:
                body = self.spoil(path, body)
            self.sent[path] += len(body)
            return [body]
        if not status:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        respond(f"{status} Spoilt", [("Content-Type", "application/xml")])
        code = f"<Error><Code>{CODES[status]}</Code><Message>it is spoilt</Message></Error>"
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else code.encode()]

    def put(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Put objects into a bucket, which is made where there is none."""
        if bucket not in self.backend.buckets:
            self.backend.create_bucket(bucket, "us-east-1")
        for key, data in objects.items():
            self.backend.put_object(bucket, key, data)

    def put_folder(self, bucket: str, prefix: str, folder: Path) -> None:
        """Put the files of a folder below a prefix."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.put(
            bucket,
            {
                f"{prefix}/{path.relative_to(folder).as_posix()}": path.read_bytes()
                for path in files
            },
        )

    def get(self, bucket: str, key: str) -> bytes | None:
        """Return the content of an object; None where there is none."""
        found = self.backend.get_object(bucket, key)
        return None if found is None else bytes(found.value)

    def uploads(self, bucket: str) -> list[str]:
        """Return the keys of the uploads that are not completed."""
        return [each.key_name for each in self.backend.buckets[bucket].multiparts.values()]

    def clear(self) -> None:
        """Forget all objects and faults."""
        self.fault = self.spoil = None
        self.requests.clear()
        self.sent.clear()
        self.backend.reset()


def first(count: int, status: int, *, method: str = "GET", part: str = "") -> Fault:
    """Return a fault that spoils the first requests of a kind."""
    left = [count]

    def fault(environ: dict[str, Any]) -> int | None:
        wanted = environ["REQUEST_METHOD"] == method and part in environ["PATH_INFO"]
        if not wanted or not left[0]:
            return None
        left[0] -= 1
        return status

    return fault
