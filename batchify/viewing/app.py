"""Answer the requests of the page: rows, images, lists to exclude.

Every address begins with the token, and every request needs the name of this host; nothing is ever
written. There is no cookie: browsers send those to all ports of a host, also to servers of others.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    HTTPException,
    NotFound,
    ServiceUnavailable,
)
from werkzeug.routing import Map, Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from batchify.common.closing import Closing
from batchify.common.text import plural, printable
from batchify.errors import BatchifyError, OptionError
from batchify.format.config import build_command
from batchify.viewing.catalog import Catalog, Query
from batchify.viewing.images import Images, flag_names
from batchify.viewing.marks import list_paths, list_rows

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; object-src 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer: the page may load from this server, and from nowhere else."""

ASSETS = {
    "page.html": ("batchify.viewing", "text/html"),
    "colors.css": ("batchify.reporting", "text/css"),
    "view.css": ("batchify.viewing", "text/css"),
    "view.js": ("batchify.viewing", "text/javascript"),
}
"""The files of the page, with their package and media type."""

MOST_ROWS = 500
"""The most rows of one answer."""

MOST_MARKS = 1_000_000
CLOSE_S = 3.0
"""How long the end of the page waits for its requests; a store may take longer."""

_MOST_NBYTES = 16 << 20
_MOST_CLASSES = 5000
_SHOWN_COPIES = 24
_TEXT_LENGTH = 1000
_LAYOUTS = ("classes", "splits", "flat")
"""Layouts of datasets whose files can be excluded by their paths."""

_RULES = Map([
    Rule("/", endpoint="page", methods=["GET"]),
    Rule("/icon", endpoint="icon", methods=["GET"]),
    Rule("/<any('colors.css', 'view.css', 'view.js'):name>", endpoint="asset", methods=["GET"]),
    Rule("/file", endpoint="file", methods=["GET"]),
    Rule("/findings", endpoint="findings", methods=["GET"]),
    Rule("/rows", endpoint="rows", methods=["GET"]),
    Rule("/numbers", endpoint="numbers", methods=["GET"]),
    Rule("/row/<int:number>", endpoint="row", methods=["GET"]),
    Rule("/thumbnail/<int:number>", endpoint="thumbnail", methods=["GET"]),
    Rule("/picture/<int:number>", endpoint="picture", methods=["GET"]),
    Rule("/mask/<int:number>", endpoint="mask", methods=["GET"]),
    Rule("/exclude", endpoint="exclude", methods=["POST"]),
])  # fmt: skip


class App(Closing):
    """The WSGI application of the page; to be closed before the files that it reads.

    Parameters
    ----------
    token : str
        What all addresses begin with.
    once : str
        The path that leads to the page, for one request: other users see the command line of the
        browser.
    port : int
        Of this server.
    """

    def __init__(self, catalog: Catalog, images: Images, token: str, once: str, port: int) -> None:
        self._catalog, self._images = catalog, images
        self._token, self._once = token, [once]
        suffix = "" if port == 80 else f":{port}"  # browsers send no default port
        self._hosts = {f"{name}{suffix}" for name in ("127.0.0.1", "localhost")}
        self._changed = threading.Condition()
        self._running, self._is_closed = 0, False
        self._answers: dict[str, Callable[..., Response]] = {
            "icon": lambda _: Response(status=204),
            "asset": self._asset,
            "file": self._file,
            "findings": self._findings,
            "rows": self._rows,
            "numbers": self._numbers,
            "row": self._row,
            "thumbnail": self._thumbnail,
            "picture": self._picture,
            "mask": self._mask,
            "exclude": self._exclude,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        request = Request(environ)
        request.max_content_length = _MOST_NBYTES
        try:
            with self._counted():
                response = self._answer(request)
        except Forbidden as error:
            response = Response(f"{error.description}\n", 403, content_type="text/plain")
        except HTTPException as error:
            response = _error(error.code or 500, error.description or error.name)
        except OptionError as error:
            response = _error(400, str(error))
        except (BatchifyError, OSError) as error:
            response = _error(422, str(error))
        except MemoryError:
            response = _error(507, "out of memory")
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response(environ, start_response)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a request while it is answered; refuse it if the page has ended."""
        with self._changed:
            if self._is_closed:
                raise ServiceUnavailable("batchify view has ended.")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Wait, but not long, until no request is answered, and refuse those that follow.

        The process would never end if a thread had the lock of HDF5 then.
        """
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._running, CLOSE_S)

    def _answer(self, request: Request) -> Response:
        host = request.environ.get("HTTP_HOST", "")
        if host not in self._hosts:
            # a page of another name that leads here (DNS rebinding) would be of the same origin
            raise Forbidden("This server answers to 127.0.0.1 only.")
        if request.headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise Forbidden("This server answers to its own page only.")
        first, slash, path = request.path[1:].partition("/")
        is_known = _is_same(first, self._token)
        if not path and (self._opens(first) or (is_known and not slash)):
            return redirect(f"/{self._token}/", 303)
        if not is_known:
            raise Forbidden("Open the address that batchify view has printed: its token is new.")
        urls = _RULES.bind(host, script_name=f"/{self._token}", default_method=request.method)
        endpoint, values = urls.match(f"/{path}")
        if endpoint == "page":
            return self._asset(request, "page.html")
        return self._answers[endpoint](request, **values)

    def _opens(self, text: str) -> bool:
        """Return whether a text is the path for one request, which it uses up."""
        if any(_is_same(text, once) for once in self._once):
            with contextlib.suppress(IndexError):  # another thread was faster
                self._once.pop()
                return True
        return False

    def _asset(self, _request: Request, name: str) -> Response:
        package, kind = ASSETS[name]
        data = files(package).joinpath(name).read_bytes()
        return Response(data, content_type=f"{kind}; charset=utf-8")

    def _file(self, _request: Request) -> Response:
        catalog = self._catalog
        names = [printable(name) for name in catalog.classes]
        counts = np.bincount(catalog.labels[catalog.labels >= 0], minlength=len(names)).tolist()
        classes = sorted(range(len(names)), key=lambda i: -counts[i])[:_MOST_CLASSES]
        return _json({
            "name": printable(catalog.name),
            "identity": catalog.identity,
            "rows": len(catalog),
            "splits": {name: len(numbers) for name, numbers in catalog.splits.items()},
            "classes": [
                {"index": i, "name": names[i], "rows": counts[i]} for i in sorted(classes)
            ] if catalog.has_classes else [],
            "moreClasses": len(names) - len(classes) if catalog.has_classes else 0,
            "labelColumns": [] if catalog.has_classes else names,
            "classMode": catalog.class_mode,
            "isEncoded": catalog.is_encoded,
            "isOfFiles": catalog.config.get("layout") in _LAYOUTS,
            "dtype": catalog.dtype,
            "shape": catalog.facts.image_shape,
            "command": build_command(catalog.config, skipped=bool(catalog.facts.skipped)),
        })  # fmt: skip

    def _findings(self, _request: Request) -> Response:
        return _json([
            {
                "code": each.problem.code,
                "severity": each.problem.severity,
                "message": each.problem.message,
                "advice": each.problem.advice,
                "rows": len(each.numbers),
            }
            for each in self._catalog.findings
        ])  # fmt: skip

    def _rows(self, request: Request) -> Response:
        """Return some of the rows that match a query, or the rows of given numbers."""
        if "of" in request.args:
            texts = request.args["of"].split(",")[:MOST_ROWS]
            numbers = _numbers_of(
                [int(text) if _is_number(text) else text for text in texts], len(self._catalog)
            )
            return _json({"total": len(numbers), "rows": [self._brief(n) for n in numbers]})
        found = self._catalog.find(_query(request))
        start = _whole(request, "start", 0)
        count = min(_whole(request, "count", MOST_ROWS), MOST_ROWS)
        rows = [self._brief(number) for number in found[start : start + count].tolist()]
        return _json({"total": len(found), "rows": rows})

    def _numbers(self, request: Request) -> Response:
        """Return the numbers of all rows that match a query."""
        found = self._catalog.find(_query(request))
        if len(found) > MOST_MARKS:
            raise BadRequest(f"{plural(len(found), 'row')} are too many to mark at once.")
        return _json(found.tolist())

    def _brief(self, number: int) -> dict[str, Any]:
        """Return what the grid shows of a row."""
        catalog = self._catalog
        split, row = catalog.locate(number)
        label = int(catalog.labels[number])
        return {
            "number": number,
            "split": split,
            "row": row,
            "path": printable(catalog.paths[number]),
            "label": printable(catalog.classes[label]) if label >= 0 else "",
        }

    def _row(self, _request: Request, number: int) -> Response:
        """Return everything that is known about a row."""
        catalog = self._catalog
        split, row = catalog.locate(number)
        facts = catalog.facts.splits[split]
        copies = catalog.same_image(number)
        values = self._images.values(number)
        labels = values.pop("labels", None)
        findings = catalog.known_findings
        found = {
            **self._brief(number),
            "sha256": facts.digests[row].tobytes().hex(),
            "sourceSize": facts.sizes[row].tolist(),
            "flags": flag_names(int(facts.flags[row])),
            "findings": [
                {
                    "code": each.problem.code,
                    "severity": each.problem.severity,
                    "note": each.notes.get(number, ""),
                }
                for each in findings
                if number in each
            ]
            if findings is not None
            else None,
            "copies": [self._brief(n) for n in copies[:_SHOWN_COPIES].tolist()],
            "moreCopies": max(0, len(copies) - _SHOWN_COPIES),
            "alike": [{**self._brief(n), "bits": bits} for n, bits in catalog.find_alike(number)],
            "columns": [[printable(name), _shown(value)] for name, value in values.items()],
        }
        if labels is not None:
            labels = labels if isinstance(labels, list) else [labels]
            found["numbers"] = [
                [printable(name), _shown(value)]
                for name, value in zip(catalog.classes, labels, strict=False)
            ]
        if facts.psnr is not None and np.isfinite(facts.psnr[row]):
            found["psnr"] = round(float(facts.psnr[row]), 2)
        return _json(found)

    def _thumbnail(self, _request: Request, number: int) -> Response:
        return _image(self._images.thumbnail(number))

    def _picture(self, request: Request, number: int) -> Response:
        return _image(self._images.picture(number, fit="fit" in request.args))

    def _mask(self, _request: Request, number: int) -> Response:
        return _image(self._images.mask(number))

    def _exclude(self, request: Request) -> Response:
        """Return a list of marked rows, as build takes it."""
        try:
            asked = json.loads(request.get_data())
            numbers = _numbers_of(asked["numbers"], len(self._catalog))
            kind = asked["kind"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadRequest("This is not a list of rows.") from error
        if kind == "paths":
            data = list_paths(self._catalog, numbers)
        elif kind == "rows":
            data = list_rows(self._catalog, numbers)
        else:
            raise BadRequest("There are lists of rows, and of paths.")
        return Response(data, content_type="application/octet-stream")


def _is_same(text: str, token: str) -> bool:
    """Compare two texts in a time that does not depend on where they differ."""
    return hmac.compare_digest(text.encode("utf-8", "replace"), token.encode())


def _query(request: Request) -> Query:
    args = request.args
    label = _whole(request, "class", 0) if args.get("class") else None
    text = args.get("text", "")[:_TEXT_LENGTH]
    return Query(args.get("split", ""), label, args.get("finding", ""), text)


def _whole(request: Request, name: str, default: int) -> int:
    """Return a parameter that is a whole number."""
    text = request.args.get(name, "")
    if not text:
        return default
    if not _is_number(text):
        raise BadRequest(f"{name} must be a whole number.")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 16


def _numbers_of(values: Any, total: int) -> list[int]:
    """Return numbers of rows, each once, in their order."""
    if not isinstance(values, list) or not all(type(each) is int for each in values):
        raise BadRequest("This is not a list of rows.")
    numbers = list(dict.fromkeys(values))
    if len(numbers) > MOST_MARKS or not all(0 <= number < total for number in numbers):
        raise NotFound("There are no such rows.")
    return numbers


def _shown(value: Any) -> str:
    """Return a value of a column as text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(value) if isinstance(value, str) else str(value)


def _json(value: Any) -> Response:
    return Response(json.dumps(value), content_type="application/json")


def _error(code: int, message: str) -> Response:
    response = _json({"error": printable(message)})
    response.status_code = code
    return response


def _image(found: tuple[bytes, str]) -> Response:
    data, kind = found
    response = Response(data, content_type=kind)
    # the address of an image has the identity of the file in it
    response.headers["Cache-Control"] = "private, max-age=3600"
    return response
