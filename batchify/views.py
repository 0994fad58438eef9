"""The sections of a page about its images: pictures, sources, and repeated ones."""

from __future__ import annotations

from collections.abc import Sequence

from batchify.album import Gallery, Picture
from batchify.dossier import Dossier, Group
from batchify.markup import (
    PATH_LENGTH,
    Html,
    bar,
    captioned,
    escape,
    join,
    named,
    paragraph,
    shorten,
    table,
    tag,
    void,
)
from batchify.names import printable, within_class
from batchify.sections import split_tag
from batchify.tallies import KINDS, TRAITS, Bin
from batchify.units import plural, share_text

_CAPTION_LENGTH = 24
"""Of a path below a picture, which is narrow; it is whole where it is pointed at, and in `alt`."""


def galleries(dossier: Dossier) -> Html:
    """Return images of every split."""
    return join([_gallery(gallery, dossier.seed) for gallery in dossier.galleries])


def sources(dossier: Dossier) -> Html:
    """Return how large the source images were, and of which kinds."""
    sizes = dossier.sizes
    if not sizes.images:
        return paragraph("There are no images.")
    longer = [(_range(each), each.count) for each in sizes.bins]
    frequent = [(f"{height:,} × {width:,}", count) for height, width, count in sizes.frequent]
    more = sizes.distinct - len(sizes.frequent)
    if more:
        frequent.append((plural(more, "other size"), sizes.images - sum(c for _, c in frequent)))
    kinds = _summed(dossier, "kinds", KINDS)
    traits = [*_summed(dossier, "traits", TRAITS), ("smaller than stored", sizes.smaller)]
    panels = [
        _histogram("Longer side, in pixels", "Longer side", longer, sizes.images),
        _histogram("Height × width, most frequent", "Size", frequent, sizes.images),
        _histogram("Kind of image", "Kind", kinds, sizes.images),
        _histogram("Images with", "Property", traits, sizes.images),
    ]
    return tag("div", *panels, class_="panels")


def repeats(dossier: Dossier) -> Html:
    """Return the images that are in the file more than once, those across splits first."""
    found = dossier.repeats
    parts = []
    if found.leaks:
        images = plural(found.leaks, "image")
        text = (
            f"{images} {'is' if found.leaks == 1 else 'are'} in more than one split: what is "
            "measured there is better than the truth. Delete the copies"
        )
        if "split" not in dossier.summary.config:  # where no --split can be given
            text += " from all splits but one."
        else:
            text += ", or build again with --split stratified --group-duplicates."
        parts.append(tag("p", tag("strong", escape("Leak. ")), escape(text), class_="bad"))
    else:
        parts.append(paragraph("No image is in more than one split.", "good"))
    if found.within:
        images = plural(found.within, "image")
        text = f"{images} {'has' if found.within == 1 else 'have'} copies within one split."
        parts.append(paragraph(text, "warn"))
    else:
        parts.append(paragraph("No duplicates within a split.", "good"))
    if found.contradictions:
        text = (
            f"{plural(found.contradictions, 'image')} "
            f"{'has' if found.contradictions == 1 else 'have'} copies in different classes."
        )
        parts.append(paragraph(text, "warn"))
    if found.between:
        rows = [
            [
                _splits(names),
                escape(f"{images:,}"),
                escape(f"{rows:,}"),
            ]
            for names, images, rows in found.between
        ]
        head = ["Splits", "Images", "Rows"]
        parts.append(table("Exact duplicates", head, rows, numbers=(1, 2)))
    for title, groups, total in (
        ("Across splits", found.leak_groups, found.leaks),
        ("Within a split", found.other_groups, found.others),
    ):
        if groups:
            parts += [tag("h3", escape(title)), tag("ul", *map(_group, groups), class_="groups")]
        if total > len(groups):
            parts.append(paragraph(f"… and {plural(total - len(groups), 'image')} more.", "note"))
    text = "Exact duplicates: sources with the very same bytes, by SHA-256."
    return join([*parts, paragraph(text, "note")])


def _splits(names: Sequence[str]) -> Html:
    """Return the splits that have an image in common, or the only one that has it."""
    tags = [split_tag(name) for name in names]
    return join([*tags, *([escape("alone")] if len(tags) == 1 else [])], " ")


def _gallery(gallery: Gallery, seed: int) -> Html:
    head = tag(
        "h3", split_tag(gallery.split), tag("small", escape(f" {plural(gallery.rows, 'image')}"))
    )
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


def _figure(picture: Picture) -> Html:
    lines = []
    if picture.class_name is not None:
        lines.append(tag("strong", named(picture.class_name)))
    path = captioned(within_class(picture.path, picture.class_name), _CAPTION_LENGTH)
    whole = shorten(printable(picture.path), PATH_LENGTH)
    lines.append(tag("span", path, class_="path", title=whole))
    if picture.damaged:
        lines.append(tag("span", escape("damaged"), class_="bad"))
    return tag("figure", _image(picture), tag("figcaption", *lines))


def _image(picture: Picture) -> Html:
    if not picture.uri:
        return tag("span", escape("left out: the page is kept small"), class_="absent")
    text = shorten(printable(picture.path), PATH_LENGTH)
    if picture.class_name is not None:
        text = f"{shorten(printable(picture.class_name), PATH_LENGTH)}: {text}"
    if picture.damaged:
        text = f"Damaged. {text}"
    return void("img", src=picture.uri, alt=text)


def _group(group: Group) -> Html:
    rows = []
    for place in group.places:
        where = escape(f"row {place.row:,}")
        name = [] if place.class_name is None else [tag("strong", named(place.class_name))]
        path = tag("span", named(place.path, PATH_LENGTH), class_="path")
        rows.append(tag("li", split_tag(place.split), *name, tag("small", where), path))
    if group.rows > len(group.places):
        rows.append(tag("li", escape(f"… and {group.rows - len(group.places):,} more rows")))
    notes = []
    if len(group.class_names) > 1:
        text = f"The same image in {plural(len(group.class_names), 'class', 'classes')}."
        notes.append(paragraph(text, "warn"))
    return tag("li", _image(group.picture), tag("div", tag("ul", *rows), *notes))


def _range(each: Bin) -> str:
    return f"{each.first:,}" if each.first == each.last else f"{each.first:,}–{each.last:,}"


def _summed(dossier: Dossier, of: str, names: Sequence[str]) -> list[tuple[str, int]]:
    """Return what all splits have of the kinds or traits."""
    columns = zip(*(getattr(kinds, of) for kinds in dossier.kinds.values()), strict=True)
    return [(name, sum(column)) for name, column in zip(names, columns, strict=True)]


def _histogram(title: str, head: str, counts: Sequence[tuple[str, int]], total: int) -> Html:
    """Return counts with bars."""
    most = max((count for _, count in counts), default=0)
    rows = [
        [
            escape(name),
            bar(count, most),
            escape(f"{count:,}"),
            escape(share_text(count, total)),
        ]
        for name, count in counts
    ]
    heads = [head, "", "Images", "Share"]
    whole = table(title, heads, rows, numbers=(2, 3), class_="histogram")
    return tag("div", tag("h3", escape(title)), whole)
