"""Elements of HTML: text is escaped wherever it is put, HTML is not escaped again."""

from __future__ import annotations

import pytest

from batchify.reporting.html import Html, code, folded, join, paragraph, table, tag, void

HOSTILE = "<b>&\"'"
SAFE = "&lt;b&gt;&amp;&quot;&#x27;"


@pytest.mark.parametrize(
    "element",
    [
        tag("p", HOSTILE),
        tag("p", f"{tag('b')}".replace("<b></b>", HOSTILE)),
        void("img", alt=HOSTILE),
        tag("p", title=Html(HOSTILE)),
        join([HOSTILE, HOSTILE]),
        paragraph(HOSTILE),
        code(HOSTILE),
        folded(HOSTILE, HOSTILE),
        table(HOSTILE, [HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]]),
    ],
)
def test_text_is_escaped_wherever_it_is_put(element: Html) -> None:
    """As content, in an attribute, and after a method of str has made HTML plain text again."""
    assert SAFE in element
    assert HOSTILE not in element


def test_html_is_not_escaped_again() -> None:
    """An element within another is an element."""
    assert tag("p", tag("b", "a & b"), " & c") == "<p><b>a &amp; b</b> &amp; c</p>"
