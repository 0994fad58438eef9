"""Serve a folder to readers of S3, on loopback: serve_bucket.py FOLDER [DELAY_MS].

A folder in FOLDER is a bucket. It answers what readers ask, HEAD, GET, by ranges as well, and
lists of keys, and sends files by sendfile: moto, the server of the tests, takes more time than the
readers that are compared. Each request for data waits DELAY_MS first, as a store far away does.
The first line on standard output is the port. GET / gives bytes and requests so far, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Answers(BaseHTTPRequestHandler):
    """The answers of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    root = Path()
    delay_s = 0.0
    sent = requests = 0
    lock = threading.Lock()

    def do_HEAD(self) -> None:
        """Describe an object, or a bucket."""
        self._object(with_body=False)

    def do_GET(self) -> None:
        """Send an object or a part of it, a list of keys, or the counts."""
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).strip("/").partition("/")
        if not bucket:
            found = {"bytes": Answers.sent, "requests": Answers.requests}
            self._text(200, json.dumps(found), "application/json")
        elif key:
            self._object(with_body=True)
        else:
            self._count(0)
            self._text(200, self._keys(bucket, parse_qs(url.query)), "application/xml")

    def _keys(self, bucket: str, query: dict[str, list[str]]) -> str:
        prefix, ends_at = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        found, folders = [], set()
        for path in sorted((self.root / bucket).rglob("*")):
            key = path.relative_to(self.root / bucket).as_posix()
            if not path.is_file() or not key.startswith(prefix):
                continue
            if ends_at and ends_at in key[len(prefix) :]:
                folders.add(prefix + key[len(prefix) :].partition(ends_at)[0] + ends_at)
                continue
            status = path.stat()
            when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(status.st_mtime))
            found.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified>"
                f"<ETag>{_etag(status)}</ETag><Size>{status.st_size}</Size></Contents>"
            )
        found += [
            f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>"
            for each in sorted(folders)
        ]
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><MaxKeys>100000</MaxKeys>"
            f"<KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>"
            f"{''.join(found)}</ListBucketResult>"
        )

    def _object(self, *, with_body: bool) -> None:
        path = self.root / unquote(urlsplit(self.path).path).strip("/")
        if path.is_dir() and path.parent == self.root:
            self._text(200, "", "application/xml")
            return
        try:
            file = path.open("rb")
        except OSError:
            self._count(0)
            code = "<Error><Code>NoSuchKey</Code></Error>" if with_body else ""
            self._text(404, code, "application/xml")
            return
        with file:
            status = os.fstat(file.fileno())
            start, stop, is_part = 0, status.st_size, False
            if match := _RANGE.fullmatch(self.headers.get("Range", "")):
                first, last = match.groups()
                is_part = True
                if first:
                    start, stop = int(first), min(int(last or stop) + 1, stop)
                else:
                    start = max(0, stop - int(last))
            self.send_response(206 if is_part else 200)
            if is_part:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{status.st_size}")
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", _etag(status))
            self.send_header("Last-Modified", formatdate(status.st_mtime, usegmt=True))
            self.send_header("Content-Type", "application/octet-stream")
            self._count(stop - start if with_body else 0)
            self.end_headers()
            self.wfile.flush()
            while with_body and start < stop:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)

    def _count(self, nbytes: int) -> None:
        time.sleep(self.delay_s)
        with Answers.lock:
            Answers.sent += nbytes
            Answers.requests += 1

    def _text(self, status: int, text: str, kind: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def handle(self) -> None:
        """Answer until the reader goes."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()


def _etag(status: os.stat_result) -> str:
    return f'"{status.st_mtime_ns:x}{status.st_size:x}"'


def main() -> None:
    """Serve until the process is ended."""
    Answers.root = Path(sys.argv[1]).resolve()
    Answers.delay_s = float(sys.argv[2] if len(sys.argv) > 2 else 0) / 1000
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.daemon_threads = True
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
