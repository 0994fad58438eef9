"""The server of the page: what it answers, and to whom."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.running import Run
from helpers.viewing import Client, served
from PIL import Image
from werkzeug import test as werkzeug

import batchify
from batchify.reporting.pictures import Pictures
from batchify.viewing import app, images
from batchify.viewing.app import App
from batchify.viewing.catalog import Catalog
from batchify.viewing.images import Images

NAME = "<script>alert(1)<∕script>"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a file with odd names, an alpha channel and a copy."""
    root = tmp_path_factory.mktemp("view")
    draw_dataset(root / "d", {"cat": 5, NAME: 5}, size=(40, 30))
    save(root / "d" / "cat" / "a\udce9.png", encoded(photo(seed=50, mode="RGBA"), "PNG"))
    save(root / "d" / NAME / "z.png", encoded(photo(seed=50, mode="RGBA"), "PNG"))
    batchify.build(root / "d", root / "out.h5", target_size=(30, 40))
    return root / "out.h5"


@pytest.fixture(scope="module")
def client(built: Path) -> Iterator[Client]:
    """Serve the file."""
    with served(built) as found:
        yield Client(found)


def test_only_the_token_opens_the_page(client: Client) -> None:
    """All addresses begin with it; nothing else brings it, and no cookie tells other servers."""
    assert len(client.token) == 32
    for token in ("", "x", client.token[:-1], client.token.swapcase(), "%ff"):
        for path in ("/", "/rows", "/view.js", "/picture/0", f"/?token={client.token}", "/icon"):
            given = f"batchify-view-{client.view.port}={client.token}"
            status, data, headers = client.ask(path, token=token, Cookie=given)
            assert status == 403
            assert b"Open the address" in data
            assert headers["Content-Type"].startswith("text/plain")
    for path in ("/", "/rows", "/view.js", "/picture/0"):
        status, _, headers = client.ask(path)
        assert status == 200
        assert "Set-Cookie" not in headers
    status, _, headers = client.ask("")
    assert (status, headers["Location"]) == (303, f"/{client.token}/")


def test_the_browser_is_started_with_an_address_for_one_request(built: Path) -> None:
    """Other users of the machine may read its command line, and get nothing with it."""
    with served(built) as found:
        client = Client(found)
        once = found.url_once.rpartition("/")[0].rpartition("/")[2]
        assert once != client.token
        assert client.ask("/rows", token=once)[0] == 403
        status, _, headers = client.ask("/", token=once)
        assert (status, headers["Location"]) == (303, f"/{client.token}/")
        assert client.ask("/", token=once)[0] == 403
        assert client.ask("/")[0] == 200


def test_only_this_host_is_served(client: Client) -> None:
    """A page of another name that leads to 127.0.0.1 gets nothing, whatever it sends."""
    port = client.view.port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        for path in ("/", "/rows"):
            status, data, _ = client.ask(path, Host=host)
            assert status == 403
            assert b"127.0.0.1 only" in data
    assert client.ask("/rows", Host=f"localhost:{port}")[0] == 200


def test_port_80_is_not_in_the_name_of_the_host(built: Path) -> None:
    """Browsers leave it out, as it is the default."""
    with Catalog(built) as catalog, Images(catalog) as pictures:
        asked = werkzeug.Client(App(catalog, pictures, "token", "once", 80))
        for host, status in (("127.0.0.1", 200), ("localhost", 200), ("evil.example", 403)):
            headers = {"Origin": f"http://{host}"}
            assert asked.get("/token/", f"http://{host}/", headers=headers).status_code == status


def test_requests_of_other_pages_are_refused(client: Client) -> None:
    """Of another port of this host, too, even if they knew the token."""
    port, body = client.view.port, json.dumps({"kind": "rows", "numbers": [0]})
    for origin in ("null", "http://evil.example", f"http://127.0.0.1:{port + 1}",
                   f"https://127.0.0.1:{port}", f"http://localhost:{port}"):  # fmt: skip
        status, data, _ = client.ask("/exclude", method="POST", body=body, Origin=origin)
        assert status == 403
        assert b"its own page only" in data
    own = f"http://127.0.0.1:{port}"
    assert client.ask("/exclude", method="POST", body=body, Origin=own)[0] == 200


def test_only_loopback_listens(client: Client) -> None:
    """No other address of this machine does."""
    assert client.view.server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path", ["/", "/view.js", "/colors.css", "/rows", "/picture/0", "/nothing"]
)
def test_every_answer_bars_everything_from_elsewhere(client: Client, path: str) -> None:
    """By its policy, errors and images as well."""
    for token in (client.token, "x"):
        _, _, headers = client.ask(path, token=token)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_the_page_asks_for_nothing_from_elsewhere(client: Client) -> None:
    """No address of another host is in it, nor a style or a script of its own."""
    for path in ("/", "/view.js", "/view.css", "/colors.css"):
        text = client.ask(path)[1].decode()
        assert not re.search(r"https?://|//\w+\.\w+|innerHTML|eval\(|style=", text), path


def test_nothing_can_be_written(client: Client) -> None:
    """Only the list of marks is asked for with another method, and it changes nothing."""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/", "/rows", "/picture/0", "/row/0"):
            assert client.ask(path, method=method)[0] == 405
    assert client.ask("/exclude")[0] == 405


def test_rows_are_listed_by_windows(client: Client) -> None:
    """With names that print, whatever their bytes; a window has a limit."""
    file = client.json("/file")
    assert file["rows"] == 12
    assert [each["name"] for each in file["classes"]] == [NAME, "cat"]
    found = client.json("/rows?start=10&count=5")
    assert (found["total"], len(found["rows"])) == (12, 2)
    found = client.json("/rows?text=A%5Cxe9")
    assert found["total"] == 0  # the bytes are searched, not how they are shown
    (row,) = client.json("/rows?text=cat/a")["rows"]
    assert row["path"] == "cat/a\\xe9.png"
    both = client.json(f"/rows?of={row['number']},0")["rows"]
    assert [each["number"] for each in both] == [row["number"], 0]
    assert client.json("/numbers?class=1") == [
        each["number"] for each in client.json("/rows?class=1")["rows"]
    ]
    for path in ("/rows?split=x", "/rows?class=9", "/rows?class=-1", "/rows?start=x",
                 "/rows?finding=x", "/rows?of=1,x"):  # fmt: skip
        status, data, _ = client.ask(path)
        assert status == 400, path
        assert json.loads(data)["error"]
    for path in ("/row/12", "/rows?of=12", "/picture/99", "/thumbnail/12"):
        assert client.ask(path)[0] in (400, 404)


def test_a_row_is_told_in_full(client: Client, built: Path) -> None:
    """Hash, flags, sizes, findings and copies."""
    listed = {each["code"]: each for each in client.json("/findings")}
    assert listed["label-conflict"]["severity"] == "error"
    (row,) = client.json("/rows?text=cat/a")["rows"]
    found = client.json(f"/row/{row['number']}")
    assert found["label"] == "cat"
    with h5py.File(built, locking=False) as file:
        rows = file[row["split"]]
        assert found["sha256"] == rows["source_sha256"][row["row"]].tobytes().hex()
        assert found["sourceSize"] == rows["source_size"][row["row"]].tolist()
    assert found["label"] == "cat"
    assert found["flags"] == ["alpha"]
    assert [each["path"] for each in found["copies"]] == [f"{NAME}/z.png"]
    codes = {each["code"] for each in found["findings"]}
    other = client.json(f"/row/{found['copies'][0]['number']}")
    codes |= {each["code"] for each in other["findings"]}
    assert {"label-conflict", "alpha-dropped"} <= codes


def test_findings_are_not_waited_for(built: Path) -> None:
    """They take seconds for a million rows; until they are known, a row says so."""
    with served(built) as found:
        client = Client(found)
        assert client.json("/row/0")["findings"] is None
        client.json("/findings")
        assert client.json("/row/0")["findings"] is not None


def test_pictures_are_the_stored_rows(client: Client, built: Path) -> None:
    """Pixel for pixel."""
    (row,) = client.json("/rows?text=cat/img_003")["rows"]
    with h5py.File(built, locking=False) as file:
        stored = file[row["split"]]["images"][row["row"]]
    picture = client.picture(f"/picture/{row['number']}")
    np.testing.assert_array_equal(np.asarray(picture), stored)
    assert client.picture(f"/thumbnail/{row['number']}").size == (160, 120)
    assert client.ask(f"/mask/{row['number']}")[0] == 400


def test_lists_name_the_marked_rows(client: Client) -> None:
    """As bytes; what is no list of rows is refused."""
    (row,) = client.json("/rows?text=cat/a")["rows"]
    body = json.dumps({"kind": "paths", "numbers": [row["number"]]})
    status, data, _ = client.ask("/exclude", method="POST", body=body)
    assert (status, data) == (200, b"cat/a\xe9.png\n")
    body = json.dumps({"kind": "rows", "numbers": [row["number"]]})
    status, data, _ = client.ask("/exclude", method="POST", body=body)
    assert json.loads(data.splitlines()[1])["row"] == row["row"]
    nested = "[" * 100_000
    for body in ("", "[]", '{"kind": "x", "numbers": [0]}', '{"kind": "rows", "numbers": ["x"]}',
                 nested):  # fmt: skip
        assert client.ask("/exclude", method="POST", body=body)[0] == 400
    assert client.ask("/exclude", method="POST", body="[" * 50_000)[0] == 400
    assert client.ask("/exclude", method="POST", body='{"kind":"rows","numbers":[99]}')[0] == 404


@pytest.mark.parametrize(
    "options",
    [
        {"store": "encoded"},
        {"compression": "gzip"},
        {"color_mode": "rgba"},
        {"color_mode": "grayscale", "dtype": "uint16"},
        {"dtype": "float32"},
        {"store": "jpeg", "max_side": 30},
    ],
    ids=str,
)
def test_every_kind_of_file_is_shown(tmp_path: Path, options: dict[str, Any]) -> None:
    """Also one that stores image files, in their own size or as they are read."""
    draw_dataset(tmp_path / "d", {"cat": 2, "dog": 2}, size=(40, 30))
    save(tmp_path / "d" / "cat" / "deep.png", encoded(photo(40, 30, 5, "I;16"), "PNG"))
    batchify.build(tmp_path / "d", tmp_path / "out.h5", target_size=(20, 20), **options)
    with served(tmp_path / "out.h5") as found:
        client = Client(found)
        for number in range(5):
            assert client.picture(f"/thumbnail/{number}").size == (160, 160)
            fitted = client.picture(f"/picture/{number}?fit")
            assert fitted.size == (20, 20)
            size = client.picture(f"/picture/{number}").size
            assert size == {"encoded": (40, 30), "jpeg": (30, 22)}.get(
                options.get("store", ""), (20, 20)
            ) or size == (30, 23)


def test_masks_numbers_and_columns_are_shown(tmp_path: Path) -> None:
    """Of files from a manifest."""
    lines = ["path,label,place"]
    for i in range(5):
        save(tmp_path / "d" / f"{i}.png", encoded(photo(8, 8, i), "PNG"))
        save(tmp_path / "d" / f"m{i}.png", encoded(Image.new("L", (8, 8), i % 3), "PNG"))
        lines.append(f"{i}.png,m{i}.png,<b>{i}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    common: dict[str, Any] = {"manifest": tmp_path / "t.csv", "target_size": (8, 8)}
    batchify.build(tmp_path / "d", tmp_path / "m.h5", class_mode="mask", keep_columns=["place"],
                   **common)  # fmt: skip
    with served(tmp_path / "m.h5") as found:
        client = Client(found)
        assert client.json("/file")["classes"] == []
        row = client.json("/row/2")
        index = int(row["path"][0])
        assert row["columns"] == [["label_paths", f"m{index}.png"], ["place", f"<b>{index}"]]
        assert client.picture("/mask/2").size == (8, 8)
    (tmp_path / "t.csv").write_text("path,x,y\n" + "".join(f"{i}.png,{i},0.5\n" for i in range(5)))
    batchify.build(tmp_path / "d", tmp_path / "n.h5", class_mode="regression",
                   label_columns=["x", "y"], **common)  # fmt: skip
    with served(tmp_path / "n.h5") as found:
        row = Client(found).json("/row/1")
        assert row["numbers"] == [["x", row["path"][0]], ["y", "0.5"]]


def test_a_damaged_row_is_told_and_hides_no_other(photos: Path, tmp_path: Path) -> None:
    """A crossed tile in the grid, and the reason in place of the image."""
    batchify.build(photos, tmp_path / "out.h5", target_size=(8, 8))
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file["train"]["images"][1] = 0
    with served(tmp_path / "out.h5") as found:
        client = Client(found)
        assert client.picture("/thumbnail/1").getpixel((0, 0)) == (176, 0, 32)
        status, data, _ = client.ask("/picture/1")
        assert status == 422
        assert "row 1 is damaged: checksum mismatch" in json.loads(data)["error"]
        assert client.ask("/picture/2")[0] == 200


def test_a_folder_of_shards_is_one_page(photos: Path, tmp_path: Path) -> None:
    """More files than are open at once."""
    batchify.build_shards(photos, tmp_path / "s", shards=12, target_size=(8, 8))
    batchify.build(photos, tmp_path / "out.h5", target_size=(8, 8))
    with served(tmp_path / "s") as many, served(tmp_path / "out.h5") as one:
        clients = Client(many), Client(one)
        for number in range(15):
            pictures = [each.picture(f"/picture/{number}").tobytes() for each in clients]
            assert pictures[0] == pictures[1]
            rows = [each.json(f"/row/{number}") for each in clients]
            assert rows[0] == rows[1]


@pytest.mark.parametrize("kind", ["file", "shards"])
def test_rows_of_another_build_are_never_shown(photos: Path, tmp_path: Path, kind: str) -> None:
    """If a new build replaces the file, what was read before stays, and the rest is an error."""

    def build(seed: int) -> Path:
        options: dict[str, Any] = {"target_size": (8, 8), "seed": seed, "overwrite": True}
        if kind == "file":
            batchify.build(photos, tmp_path / "out", **options)
        else:
            batchify.build_shards(photos, tmp_path / "out", shards=2, **options)
        return tmp_path / "out"

    with served(build(0)) as found:
        client = Client(found)
        before = client.json("/rows?of=0")
        build(1)
        assert client.json("/rows?of=0") == before
        for path in ("/picture/0", "/thumbnail/0", "/row/0"):
            status, data, _ = client.ask(path)
            assert status == 422
            assert "was rebuilt after the page was opened" in json.loads(data)["error"]


def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start the command; return it and its first line."""
    command = [sys.executable, "-m", "batchify", "view", "--no-browser", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_command_serves_until_a_signal(built: Path) -> None:
    """At the port of the file, so that a browser finds its marks again; at any if it is taken."""
    process, line = start(str(built))
    other, other_line = start(str(built))
    try:
        found = re.fullmatch(r"out\.h5: http://127\.0\.0\.1:(\d+)/(\S{32})/\n", line)
        assert found is not None, line
        assert 20_000 <= int(found[1]) < 30_000
        assert "its usual port is taken" in other_line
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
        connection.request("GET", f"/{found[2]}/")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        process.send_signal(signal.SIGINT)
        other.send_signal(signal.SIGTERM)
        outputs = [each.communicate(timeout=30) for each in (process, other)]
    assert (process.returncode, other.returncode) == (130, 143)
    assert [output for output, _ in outputs] == ["", ""]
    assert [errors for _, errors in outputs] == ["", "Error: stopped by SIGTERM\n"]


def test_what_cannot_be_served_is_an_error(run: Run, built: Path, photos: Path) -> None:
    """A port that is in use, a file that is not there, a dataset that is not built."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("view", str(built), "--port", str(port))
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 is not free: in use; choose another --port" in done.stderr
    done = run("view", "none.h5")
    assert (done.returncode, done.stdout) == (1, "")
    assert "none.h5" in done.stderr
    done = run("view", str(photos))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_without_werkzeug_the_extra_is_named(built: Path) -> None:
    """The command itself needs nothing."""
    script = (
        "import sys; sys.modules['werkzeug'] = None; sys.modules['werkzeug.serving'] = None\n"
        f"sys.argv = ['batchify', 'view', {str(built)!r}]\n"
        "from batchify.cli import main; main()"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "batchify view needs Werkzeug, which cannot be imported" in done.stderr
    assert "pip install 'batchify-h5[view]'" in done.stderr


def test_a_slow_file_holds_up_no_other(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it is opened nor while a row is read, however many wait for it."""
    batchify.build_shards(photos, tmp_path / "s", shards=4, target_size=(8, 8), validation_split=0)
    goes_on, waiting = threading.Event(), threading.Semaphore(0)

    def slow(wrapped: Callable[..., Any], is_slow: Callable[..., bool]) -> Callable[..., Any]:
        def wait(*args: Any) -> Any:
            if is_slow(*args):
                waiting.release()
                assert goes_on.wait(30)
            return wrapped(*args)

        return wait

    with served(tmp_path / "s") as found, ThreadPoolExecutor(20) as pool:
        client = Client(found)
        last = client.json("/file")["rows"] - 1
        client.ask(f"/picture/{last}")
        opening = slow(images.OpenFile._open, lambda *_: True)
        monkeypatch.setattr(images.OpenFile, "_open", opening)
        first = pool.submit(client.ask, "/picture/0")
        assert waiting.acquire(timeout=30)
        assert client.ask(f"/picture/{last}")[0] == 200
        reading = slow(Pictures.read, lambda _, row: row == 1)
        monkeypatch.setattr(Pictures, "read", reading)
        goes_on.set()
        assert first.result()[0] == 200
        goes_on.clear()
        many = [pool.submit(client.ask, "/thumbnail/1") for _ in range(18)]
        for _ in many:
            assert waiting.acquire(timeout=30)
        assert client.ask("/thumbnail/0")[0] == 200
        goes_on.set()
        assert [each.result()[0] for each in many] == [200] * 18


def test_a_file_of_ones_own_is_shown_beyond_the_default_limits(tmp_path: Path) -> None:
    """With trusted; otherwise the page says how."""
    save(tmp_path / "d" / "a" / "0.png", encoded(Image.new("L", (70_000, 16)), "PNG"))
    batchify.build(tmp_path / "d", tmp_path / "out.h5", target_size=(8, 8), store="encoded",
                   max_dimension=80_000, validation_split=0.0, workers=1)  # fmt: skip
    with served(tmp_path / "out.h5") as found:
        status, data, _ = Client(found).ask("/picture/0")
        assert status == 422
        assert "trusted=True (--trusted)" in json.loads(data)["error"]
    with served(tmp_path / "out.h5", trusted=True) as found:
        assert Client(found).picture("/picture/0?fit").size == (8, 8)
        assert Client(found).picture("/picture/0").size == (70_000, 16)


def test_the_end_waits_for_requests(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose thread reads HDF5 would not end; but for no store that hangs."""
    started, goes_on, read = threading.Event(), threading.Event(), Pictures.read

    def slow(*args: Any) -> bytes:
        started.set()
        assert goes_on.wait(30)
        return read(*args)

    monkeypatch.setattr(Pictures, "read", slow)
    with ThreadPoolExecutor(1) as pool:
        with served(built) as found:
            asked = pool.submit(Client(found).ask, "/picture/0")
            assert started.wait(30)
            threading.Timer(0.1, goes_on.set).start()
        assert asked.result()[0] == 200
        goes_on.clear()
        started.clear()
        monkeypatch.setattr(app, "CLOSE_S", 0.1)
        with served(built) as found:
            asked = pool.submit(Client(found).ask, "/picture/0")
            assert started.wait(30)
        assert not asked.done()
        goes_on.set()
