"""The report in a real browser: it looks and behaves as it should, and asks for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import CONTRAST, MISSING, find_browser
from helpers.drawing import draw_dataset, encoded, photo, save

from batchify.building.build import build
from batchify.dataset_options import SplitOptions
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions
from batchify.reporting.report import write_report

pytest.importorskip("playwright.sync_api", reason="install playwright")
pytestmark = pytest.mark.skipif(find_browser() is None, reason=MISSING)

NAMES = (
    "<script>document.title = 'ran'</script>",
    '"><img src=x onerror="document.title = \'ran\'">',
    "' onmouseover='document.title = 1' autofocus onfocus='document.title = 1",
    "\u202egnp.evil",
    "a" * 200,
)

SCROLLED = """
async () => {  // in frames, as the policy of the page bars the eval of playwright's own waiting
  for (let i = 0; i < 600 && document.activeElement.scrollLeft === 0; i++) {
    await new Promise(requestAnimationFrame);
  }
  return document.activeElement.scrollLeft > 0;
}
"""

FOCUSED = """
() => {
  const each = document.activeElement;
  if (!each || each === document.body) return null;
  const style = getComputedStyle(each);
  return {
    tag: each.tagName.toLowerCase(),
    name: each.getAttribute("href") || each.getAttribute("aria-label") || each.textContent,
    outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
  };
}
"""


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a report with all that it can have: leaks, copies, skipped images, hostile names."""
    root = tmp_path_factory.mktemp("report")
    draw_dataset(root / "d", {"cat": 10, "dog": 20}, size=(160, 90))
    shutil.copy(root / "d" / "cat" / "img_000.jpg", root / "d" / "cat" / "leak.jpg")
    shutil.copy(root / "d" / "dog" / "img_019.jpg", root / "d" / "dog" / "copy.jpg")
    shutil.copy(root / "d" / "cat" / "img_009.jpg", root / "d" / "dog" / "wrong.jpg")
    for seed, name in enumerate(NAMES):
        name = name.replace("/", "\u2215")
        for i in range(4):
            data = encoded(photo(seed=seed * 9 + i, mode=("RGBA", "L", "P", "RGB")[i]), "PNG")
            save(root / "d" / name / f"{i}{name}.png", data)
        save(root / "d" / name / f"bad{name}.png", b"bad")
    options = BuildOptions(decode=DecodeOptions((90, 160)), split=SplitOptions(test=0.2))
    build(root / "d", root / "out.h5", options, on_error="skip")
    write_report(root / "out.h5", root / "report.html")
    return root / "report.html"


class Tab:
    """A page, and all that it did: requests, messages, dialogs."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: self.messages.append(dialog.message))


@pytest.fixture
def show(browser: Any) -> Iterator[Any]:
    """Open pages, each in a context of its own."""
    contexts = []

    def opened(path: Path, width: int = 1200, scheme: str = "light") -> Tab:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        tab = Tab(context)
        tab.page.goto(path.as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()


def network(tab: Tab) -> list[str]:
    """Return what was asked for apart from the page itself and the pictures in it."""
    return [url for url in tab.requests[1:] if not url.startswith("data:")]


def test_it_opens_without_a_word_or_a_request(show: Any, page_path: Path) -> None:
    """No message, no error, no request; every picture is there; no name became a script."""
    tab = show(page_path)
    assert tab.requests[0] == page_path.as_uri()
    assert network(tab) == []
    assert tab.messages == []
    assert tab.page.title() == "out.h5 · batchify"
    widths = tab.page.evaluate("[...document.images].map((each) => each.naturalWidth)")
    assert len(widths) > 30
    assert all(width > 0 for width in widths)
    counts = tab.page.evaluate(
        "['script', '[onerror]', '[onfocus]', '[style]', 'h1'].map("
        "(each) => document.querySelectorAll(each).length)"
    )
    assert counts == [0, 0, 0, 0, 1]
    above = tab.page.evaluate(  # how far the middle of a bar is from that of its number
        "[...document.querySelectorAll('.histogram tbody tr')].map((row) => {"
        "  const [bar, number] = ['.bar', 'td:nth-child(3)'].map("
        "    (each) => row.querySelector(each)?.getBoundingClientRect());"
        "  return bar ? number.top + number.height / 2 - bar.top - bar.height / 2 : 0 })"
    )
    assert max(map(abs, above)) < 2 < len(above)
    for image in tab.page.locator("img").all()[:3]:
        image.hover()
    assert tab.page.title() == "out.h5 · batchify"


def test_a_script_in_it_would_not_run(show: Any, page_path: Path, tmp_path: Path) -> None:
    """Were one to slip through, the policy of the page stops it, and what it would load."""
    slipped = (
        "<script>document.title = 'ran'</script>"
        "<img src='https://example.org/x.png' onerror=\"document.title = 'ran'\">"
        "<link rel=stylesheet href='https://example.org/x.css'><b style='color: red'>b</b>"
    )
    (tmp_path / "slipped.html").write_text(
        page_path.read_text("utf-8").replace("</main>", f"{slipped}</main>"), "utf-8"
    )
    tab = show(tmp_path / "slipped.html")
    assert tab.page.title() == "out.h5 · batchify"
    assert len(tab.messages) >= 5
    assert all("Content Security Policy" in message for message in tab.messages)


@pytest.mark.parametrize("width", [320, 360, 768])
def test_no_page_is_wider_than_its_window(show: Any, page_path: Path, width: int) -> None:
    """Tables scroll within themselves; all of it opened, and by the arrow keys."""
    page = show(page_path, width).page
    page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = page.evaluate(
        "[...document.querySelectorAll('body *')].filter((each) => !each.closest('.scroll, .skip')"
        " && each.getBoundingClientRect().right > innerWidth + 0.5).map((each) => each.outerHTML)"
    )
    assert beyond == []
    if width == 320:
        region = page.get_by_role("region", name="Splits", exact=True).last
        region.focus()
        region.press("ArrowRight")
        assert page.evaluate(SCROLLED)


def test_reasons_are_not_squeezed_on_a_phone(show: Any, page_path: Path) -> None:
    """However long the path beside it is, a reason takes lines of words, not of syllables."""
    page = show(page_path, 360).page
    page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
    heights = page.evaluate(
        "[...document.querySelectorAll('#skipped td')].map((each) => each.offsetHeight)"
    )
    assert heights
    assert max(heights) < 120


def test_both_schemes_can_be_read(show: Any, page_path: Path) -> None:
    """Light and dark differ; text has the contrast of WCAG AA in both, bars that of graphics."""
    backgrounds = []
    for scheme in ("light", "dark"):
        page = show(page_path, scheme=scheme).page
        page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        found = page.evaluate(CONTRAST)
        assert len(found) > 300
        assert [each for each in found if each[0] < each[1]] == []
    assert backgrounds[0] != backgrounds[1]
    page.emulate_media(media="print")  # on paper, in the colours of the light one
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == backgrounds[0]


def test_the_keyboard_reaches_everything(show: Any, page_path: Path) -> None:
    """Tab visits every link, fold and scrolling region in order, each with a visible outline."""
    page = show(page_path, 360).page
    expected = page.evaluate(
        "[...document.querySelectorAll('a, summary, [tabindex=\"0\"]')]"
        ".filter((each) => !each.closest('details > div'))"
        ".map((each) => [each.tagName.toLowerCase(), each.getAttribute('href') || "
        "each.getAttribute('aria-label') || each.textContent])"
    )
    visited = []
    for _ in expected:
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        assert focused["outlined"], focused
        visited.append([focused["tag"], focused["name"]])
    assert visited == expected
    assert visited[0] == ["a", "#report"]


def test_enter_opens_a_fold_and_follows_a_link(show: Any, page_path: Path) -> None:
    """As the keyboard does it: the skipped images show, the skip link goes to the report."""
    page = show(page_path).page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "report"
    table = page.get_by_role("table").filter(has_text="not an image")
    assert not table.is_visible()
    page.get_by_text("paths and reasons").focus()
    page.keyboard.press("Enter")
    table.wait_for(state="visible")
    page.keyboard.press("Enter")
    table.wait_for(state="hidden")


def test_those_who_listen_are_told_the_same(show: Any, page_path: Path) -> None:
    """Landmarks, named regions and tables, headings in order; bars and marks are not read out."""
    page = show(page_path).page
    tree = page.locator("body").aria_snapshot()
    for line in ("- banner:", "- navigation \"Sections\":", "- main:", "- contentinfo:",
                 '- heading "Duplicates" [level=2]', '- region "Class balance":'):  # fmt: skip
        assert line in tree
    assert "✕" not in tree
    assert page.get_by_role("region", name="Class sizes").get_by_role("columnheader").count() == 7
