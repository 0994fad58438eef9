"""The page in a real browser: it looks and behaves as it should, and asks for nothing elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
from helpers.browser import CONTRAST, MISSING, find_browser
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.viewing import served, write_many

import batchify

pytest.importorskip("playwright.sync_api", reason="install playwright")
pytestmark = pytest.mark.skipif(find_browser() is None, reason=MISSING)

NAMES = (
    "<script>document.title = 'ran'<∕script>",
    '"><img src=x onerror="document.title = \'ran\'">',
    "\u202egnp.evil",
    "a" * 200,
    "קטן",
)
SIZES = ((1280, 800), (390, 844))

OVERFLOW = """
() => document.documentElement.scrollWidth > innerWidth ||
  [...document.querySelectorAll("header *, dialog[open] .bar *")].some((each) => {
    const box = each.getBoundingClientRect();
    return box.width && (box.left < -1 || box.right > innerWidth + 1);
  })
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a file with hostile names and a copy."""
    root = tmp_path_factory.mktemp("view")
    draw_dataset(root / "d", {"cat": 20, "dog": 30}, size=(32, 24))
    for seed, name in enumerate(NAMES):
        data = encoded(photo(32, 24, seed * 9), "PNG")
        save(root / "d" / name / f"1{name}.png", data)
    save(root / "d" / "cat" / "zcopy.png", encoded(photo(32, 24, 0), "PNG"))
    batchify.build(root / "d", root / "out.h5", target_size=(24, 32))
    return root / "out.h5"


@contextlib.contextmanager
def opened(
    browser: Any,
    url: str,
    size: tuple[int, int] = SIZES[0],
    scheme: str = "light",
    told: str = "",
) -> Iterator[Any]:
    """Open the page; at the end, it must have asked for nothing elsewhere, without any error."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
    )
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((url, "blob:")) else faults.append(request.url)
        ),
    )
    try:
        page.goto(url)
        page.wait_for_selector(".cell img")
        yield page
        assert [fault for fault in faults if not told or told not in fault] == []
        assert page.title().endswith("· batchify view")
    finally:
        context.close()


@pytest.fixture(scope="module")
def url(built: Path) -> Iterator[str]:
    """Serve the file."""
    with served(built) as found:
        yield found.url


def numbers(page: Any) -> list[int]:
    """Return the numbers of the rows that are drawn."""
    found: list[str] = page.eval_on_selector_all(
        ".cell", "cells => cells.map(each => each.dataset.number)"
    )
    return sorted(map(int, found))


def count(page: Any, text: str) -> None:
    """Wait until the page says how many rows match."""
    page.wait_for_selector(f"#count:text-is('{text}')")


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window(browser: Any, url: str, size: tuple[int, int], scheme: str) -> None:
    """Grid, image and dialogs, in a phone's window, too; nothing is left in the browser's jar."""
    with opened(browser, url, size, scheme) as page:
        assert page.context.cookies() == []
        assert not page.evaluate(OVERFLOW)
        page.keyboard.press("Enter")
        page.wait_for_selector("#facts dl")
        page.wait_for_selector("#stage img")
        assert not page.evaluate(OVERFLOW)
        page.keyboard.press("x")
        page.keyboard.press("Escape")
        page.click("#export")
        assert not page.evaluate(OVERFLOW)
        page.keyboard.press("Escape")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Any, url: str, scheme: str) -> None:
    """In the grid, the dialogs and beside an image, at the contrast that WCAG asks for."""
    with opened(browser, url, scheme=scheme) as page:
        page.fill("#text", "zcopy")
        count(page, "1 of 56 rows")
        page.keyboard.press("Enter")
        page.keyboard.press("x")
        page.keyboard.press("Enter")
        page.wait_for_selector("#facts .found")
        found = page.evaluate(CONTRAST)
        assert len(found) > 40
        assert [each for each in found if each[0] < each[1]] == []


def test_the_keyboard_does_it_all(browser: Any, url: str) -> None:
    """Move, open, step, mark, search, close; the focus stays visible and where it was."""
    with opened(browser, url) as page:
        current = "document.querySelector('.cell.current').dataset.number"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(current) == "1"
        active = page.evaluate("document.activeElement.getAttribute('aria-activedescendant')")
        assert page.get_attribute(f"#{active}", "aria-label").endswith("train row 1")
        page.keyboard.press("x")
        assert page.get_attribute(f"#{active}", "aria-selected") == "true"
        page.keyboard.press("End")
        assert page.evaluate(current) == "55"
        page.keyboard.press("Enter")
        page.wait_for_selector("#facts dl")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("x")
        page.wait_for_selector("#mark[aria-pressed='true']")
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "grid"
        assert page.evaluate(current) == "54"
        page.keyboard.press("/")
        page.keyboard.type("DOG/img_00")
        count(page, "10 of 56 rows")
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "grid"
        page.keyboard.press("?")
        assert page.is_visible("#help-dialog")
        page.keyboard.press("Escape")
        assert not page.is_visible("#help-dialog")
        for _ in range(30):
            page.keyboard.press("Tab")
            assert page.evaluate(
                "document.activeElement === document.body || document.activeElement.id === 'grid'"
                " || getComputedStyle(document.activeElement).outlineStyle !== 'none'"
            )


def test_filters_are_of_split_class_and_finding(browser: Any, url: str) -> None:
    """Each with its number of rows; what nothing matches is told."""
    with opened(browser, url) as page:
        page.select_option("#split", "validation")
        count(page, "10 of 56 rows")
        page.select_option("#class", label="cat (21)")
        count(page, "4 of 56 rows")
        page.click("#clear")
        count(page, "56 rows")
        page.wait_for_selector("#finding option[value='label-conflict']", state="attached")
        page.select_option("#finding", "label-conflict")
        count(page, "1 of 56 rows")
        assert "keep each image in one class only" in page.inner_text("#advice")
        page.click(".cell img")
        page.wait_for_selector("#facts .found")
        caption = "validation 17, 4 bits differ: City Trip/IMG_0021.jpg"  # all of it can be read
        assert page.eval_on_selector(
            "#facts .rows span",
            "(e, text) => { e.textContent = text; return e.scrollHeight <= e.clientHeight }",
            caption,
        )
        page.click("#facts .rows button")  # the other row of the image
        page.wait_for_selector("#detail-title:has-text('script')")
        page.keyboard.press("Escape")
        page.fill("#text", "no such path")
        page.wait_for_selector("#empty:visible")


def test_marks_are_kept_and_downloaded(browser: Any, url: str, built: Path, tmp_path: Path) -> None:
    """As lists that a build takes; the next visit has them again."""
    with opened(browser, url) as page:
        page.fill("#text", "cat/img_00")
        count(page, "10 of 56 rows")
        page.click("#mark-all")
        page.wait_for_selector("#export:text-is('10 marked…')")
        page.click(".cell .tick")
        page.reload()
        page.wait_for_selector("#export:text-is('9 marked…')")
        page.select_option("#finding", ":marked")
        count(page, "9 of 56 rows")
        page.click("#export")
        assert "--exclude-rows out-rows.jsonl" in page.inner_text("#rows-command")
        for kind in ("rows", "paths"):
            with page.expect_download() as waiting:
                page.click(f"#download-{kind}")
            page.wait_for_selector(f"#download-{kind}:text-is('Download {kind}')")
            waiting.value.save_as(tmp_path / waiting.value.suggested_filename)
        page.click("#unmark-all")
        count(page, "0 of 56 rows")
    root = built.parent / "d"
    batchify.build(root, tmp_path / "a.h5", target_size=(24, 32),
                   exclude_rows=[str(tmp_path / "out-rows.jsonl")])  # fmt: skip
    batchify.build(root, tmp_path / "b.h5", target_size=(24, 32),
                   exclude=[f"@{tmp_path / 'out-paths.txt'}"])  # fmt: skip
    for name in "ab":
        with batchify.open(tmp_path / f"{name}.h5") as file:
            assert sum(map(len, file.values())) == 47


def test_tabs_share_their_marks(browser: Any, url: str) -> None:
    """A mark of one does not end those of another that was open before."""
    with opened(browser, url) as page:
        other = page.context.new_page()
        other.goto(page.url)
        other.wait_for_selector(".cell img")
        page.fill("#text", "cat/img_00")
        count(page, "10 of 56 rows")
        page.click("#mark-all")
        other.wait_for_selector("#export:text-is('10 marked…')")
        other.keyboard.press("End")
        other.keyboard.press("x")
        page.wait_for_selector("#export:text-is('11 marked…')")
        other.reload()
        other.wait_for_selector("#export:text-is('11 marked…')")


def test_an_image_is_shown_at_full_size(browser: Any, built: Path, tmp_path: Path) -> None:
    """Of a file that stores image files, as it is stored, as it is read, and pixel by pixel."""
    batchify.build(built.parent / "d", tmp_path / "e.h5", target_size=(10, 10), store="encoded")
    with served(tmp_path / "e.h5") as found, opened(browser, found.url) as page:
        page.keyboard.press("Enter")
        page.wait_for_selector("figcaption:text-is('As it is stored, 24 × 32 pixels')")
        page.keyboard.press("f")
        page.wait_for_selector("figcaption:text-is('As it is read, 10 × 10 pixels')")
        page.keyboard.press("z")
        page.wait_for_selector("figcaption:text-is('As it is read, 10 × 10 pixels')")
        assert page.evaluate("document.querySelector('#stage img').clientWidth") == 10


def test_a_path_reads_from_left_to_right(browser: Any, url: str) -> None:
    """Whatever its parts are written in: the folder comes before the file."""
    with opened(browser, url) as page:
        page.fill("#text", "1קטן")
        count(page, "1 of 56 rows")
        page.click(".cell img")
        page.wait_for_selector("#facts dl")
        for path in ("#detail-title > bdi", "#facts dd > bdi[dir=ltr]"):
            parts = page.eval_on_selector_all(
                f"{path} > bdi", "found => found.map(each => each.getBoundingClientRect().x)"
            )
            assert len(parts) == 2
            assert parts[0] < parts[1]
        assert page.inner_text("#detail-title") == "קטן/1קטן.png"


def test_a_server_that_ended_is_no_empty_list(browser: Any, built: Path) -> None:
    """It is told that nothing could be listed, and how to go on."""
    with contextlib.ExitStack() as lifetime:
        with served(built) as found:
            page = lifetime.enter_context(opened(browser, found.url, told="net::ERR_"))
        page.fill("#text", "dog")
        page.wait_for_selector("#alert:has-text('batchify view has ended: start it again')")
        assert page.inner_text("#count") == "The rows could not be listed."
        assert not page.is_visible("#empty")


def test_a_damaged_image_is_told(browser: Any, built: Path, tmp_path: Path) -> None:
    """In place of the image, with the reason."""
    (tmp_path / "bad.h5").write_bytes(built.read_bytes())
    with h5py.File(tmp_path / "bad.h5", "r+") as file:
        file["train"]["images"][0] = 0
    with served(tmp_path / "bad.h5") as found, opened(browser, found.url, told="422") as page:
        page.keyboard.press("Enter")
        page.wait_for_selector("#stage .bad:has-text('row 0 is damaged: checksum mismatch')")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_million_rows_scroll_to_their_end(
    browser: Any, tmp_path: Path, size: tuple[int, int], long: bool
) -> None:
    """By bar, wheel and keyboard; only what is in view is in the page, and every row is reached."""
    rows = 1_000_000 if long else 30_000
    path = tmp_path / "many.h5"
    write_many(path, rows)
    with served(path) as found, opened(browser, found.url, size) as page:
        count(page, f"{rows:,} rows")
        page.wait_for_selector("#finding option:text-is('no findings')", state="attached")
        page.evaluate("document.getElementById('grid').scrollTop = 1e9")
        page.wait_for_selector(f".cell[data-number='{rows - 1}'] img", timeout=5000)
        assert len(numbers(page)) < 100
        page.keyboard.press("Home")
        page.wait_for_selector(".cell[data-number='0'] img", timeout=5000)
        before = numbers(page)
        page.mouse.move(size[0] / 2, size[1] / 2)
        page.mouse.wheel(0, 300)
        page.wait_for_function("() => !document.querySelector(\".cell[data-number='0']\")")
        assert numbers(page)[0] < before[-1]  # a turn of the wheel jumps over no row
        page.keyboard.press("End")
        page.wait_for_selector(f".cell.current[data-number='{rows - 1}'] img", timeout=5000)
        page.fill("#text", f"{rows - 1:07}")
        count(page, f"1 of {rows:,} rows")
