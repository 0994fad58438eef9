"""The sections of the report that show images: of each split, duplicates, and unusual ones."""

from __future__ import annotations

from collections.abc import Sequence

from batchify.common.paths import within_class
from batchify.common.text import plural, printable
from batchify.reporting.html import (
    PATH_LENGTH,
    Html,
    captioned,
    join,
    named,
    paragraph,
    shorten,
    split_tag,
    table,
    tag,
    void,
)
from batchify.reporting.report_data import (
    Dossier,
    Gallery,
    Lookalikes,
    Picture,
    RepeatedImage,
    section_of,
    verdict_class,
)

_CAPTION_LENGTH = 24
"""The most characters of a path below a picture; its title and `alt` have the whole path."""


_NEAR_TITLES = {
    "near-leak": "Look alike, in several splits",
    "near-duplicate": "Look alike, within a split",
}

_NOT_LOOKED_FOR = "were not looked for: build with --appearance to find them."


def galleries(dossier: Dossier) -> Html:
    """Return images of every split."""
    return join([_gallery(gallery, dossier.seed) for gallery in dossier.galleries])


def repeats(dossier: Dossier) -> Html:
    """Return the images that several rows have, those in several splits first."""
    found = dossier.repeats.counts
    parts = _repeat_verdicts(dossier)
    if found.between:
        rows = [
            [_splits(names), f"{images:,}", f"{rows:,}"] for names, images, rows in found.between
        ]
        head = ["Splits", "Images", "Rows"]
        parts.append(table("Exact duplicates", head, rows, numbers=(1, 2)))
    for title, shown, total in (
        ("Across splits", dossier.repeats.shown_leaks, found.leaks),
        ("Within a split", dossier.repeats.shown_others, found.others),
    ):
        if shown:
            parts += [tag("h3", title), tag("ul", *map(_repeated, shown), class_="groups")]
        if total > len(shown):
            parts.append(paragraph(f"… and {plural(total - len(shown), 'image')} more.", "note"))
    text = "Exact duplicates: sources with the same bytes, by SHA-256."
    parts += [paragraph(text, "note"), *map(_lookalikes, dossier.near)]
    if not dossier.summary.config.get("appearance"):
        parts.append(paragraph(f"Images that look alike {_NOT_LOOKED_FOR}", "note"))
    return join(parts)


def _lookalikes(near: Lookalikes) -> Html:
    """Return pairs of images that look alike, side by side."""
    pairs = [
        tag("li", *(_figure(picture, f"{picture.split} row {picture.row:,}") for picture in pair))
        for pair in near.pairs
    ]
    head = tag("h3", _NEAR_TITLES[near.problem.code])
    text = "Near duplicates: perceptual hashes that differ in few bits. batchify view shows all."
    return join([head, paragraph(text, "note"), tag("ul", *pairs, class_="pairs")])


def _repeat_verdicts(dossier: Dossier) -> list[Html]:
    found = dossier.repeats.counts
    parts = [
        paragraph(f"{each}.", verdict_class(each))
        for each in dossier.problems
        if section_of(each) == "duplicates"
    ]
    if not found.leaks:
        parts.append(paragraph("No image file is in more than one split.", "good"))
    if not found.within:
        parts.append(paragraph("No image file is in a split twice.", "good"))
    return parts


def unusual(dossier: Dossier) -> Html:
    """Return the images that notices are about, the most unusual first."""
    parts = []
    has_appearance = bool(dossier.summary.config.get("appearance"))
    if not dossier.unusual:
        text = "No unusual images." if has_appearance else "No images of unusual sizes."
        parts.append(paragraph(text, "good"))
    for each in dossier.unusual:
        problem, shown = each.problem, zip(each.problem.examples, each.pictures, strict=True)
        figures = [tag("li", _figure(picture, finding.message)) for finding, picture in shown]
        count = tag("small", f" {plural(problem.count, 'image')}")
        parts += [tag("h3", problem.code, count), paragraph(f"{problem.message}.", "note")]
        parts.append(tag("ul", *figures, class_="sheet"))
    if dossier.unusual:
        text = "The most unusual first. batchify view shows all."
        parts.append(paragraph(text, "note"))
    if not has_appearance:
        text = (
            "Dark, bright and blurry images, those with little information, and those with colors "
            "unlike others of their class"
        )
        parts.append(paragraph(f"{text} {_NOT_LOOKED_FOR}", "note"))
    return join(parts)


def _splits(names: Sequence[str]) -> Html:
    """Return the splits that share an image; a single one is marked as alone."""
    tags = [split_tag(name) for name in names]
    return join([*tags, *(["alone"] if len(tags) == 1 else [])], " ")


def _gallery(gallery: Gallery, seed: int) -> Html:
    head = tag("h3", split_tag(gallery.split), tag("small", f" {plural(gallery.rows, 'image')}"))
    if not gallery.rows:
        return join([head, paragraph("This split is empty.")])
    shown = plural(len(gallery.pictures), "image")
    if gallery.classes is None:
        text = f"{shown}, drawn with seed {seed}."
    elif gallery.shown_classes < gallery.classes:
        classes = f"{gallery.shown_classes:,} of {gallery.classes:,} classes"
        text = f"{shown} of {classes}, drawn with seed {seed}."
    else:
        text = f"{shown} of {plural(gallery.classes, 'class', 'classes')}, drawn with seed {seed}."
    figures = [tag("li", _figure(picture)) for picture in gallery.pictures]
    return join([head, paragraph(text, "note"), tag("ul", *figures, class_="sheet")])


def _figure(picture: Picture, note: str = "") -> Html:
    lines = []
    if picture.class_name is not None:
        lines.append(tag("strong", named(picture.class_name)))
    path = captioned(within_class(picture.path, picture.class_name), _CAPTION_LENGTH)
    whole = shorten(printable(picture.path), PATH_LENGTH)
    lines.append(tag("span", path, class_="path", title=whole))
    if note:
        lines.append(tag("span", shorten(note, PATH_LENGTH)))
    if picture.damaged:
        lines.append(tag("span", "damaged", class_="bad"))
    if picture.undecoded:
        lines.append(tag("span", "not decoded: beyond the limits, or no plugin", class_="bad"))
    return tag("figure", _image(picture), tag("figcaption", *lines))


def _image(picture: Picture) -> Html:
    if not picture.uri:
        return tag("span", "not shown, to keep the page small", class_="absent")
    text = shorten(printable(picture.path), PATH_LENGTH)
    if picture.class_name is not None:
        text = f"{shorten(printable(picture.class_name), PATH_LENGTH)}: {text}"
    if picture.damaged:
        text = f"Damaged. {text}"
    return void("img", src=picture.uri, alt=text)


def _repeated(image: RepeatedImage) -> Html:
    rows = []
    for row in image.shown_rows:
        where = tag("small", f"row {row.row:,}")
        name = [] if row.class_name is None else [tag("strong", named(row.class_name))]
        path = tag("span", named(row.path, PATH_LENGTH), class_="path")
        rows.append(tag("li", split_tag(row.split), *name, where, path))
    if image.rows > len(image.shown_rows):
        rows.append(tag("li", f"… and {image.rows - len(image.shown_rows):,} more rows"))
    notes = []
    if len(image.class_names) > 1:
        text = f"The same image in {plural(len(image.class_names), 'class', 'classes')}."
        notes.append(paragraph(text, "warn"))
    return tag("li", _image(image.picture), tag("div", tag("ul", *rows), *notes))
