"""The report: what it says is what the file holds, and it is safe, small and the same again."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.pages import parse, read_page
from helpers.running import Run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchify.building.build import build
from batchify.checking import image_stats
from batchify.checking.check import check
from batchify.checking.repeats import RepeatCounts
from batchify.common.text import printable, share_text
from batchify.dataset_options import SplitOptions
from batchify.errors import OptionError, OutputPathError, Skipped
from batchify.format.reader import Reader
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.reporting import report_data
from batchify.reporting.html import escape
from batchify.reporting.report import MOST_NBYTES, render, write_report
from batchify.reporting.report_data import Dossier, RepeatedImage, RepeatedRow, Repeats, gather
from batchify.reporting.summary import summarize, summary_of

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' autofocus onfocus='alert(3)",
    "</style><script>alert(4)</script>",
    "--><b>bold</b>&amp;",
    "\u202egnp.evil",
    "two\nlines",
    "עברית",
)
"""Names that a page must show as they are; "/" cannot be in one, and stands for U+2215 here."""
HOSTILE_NAMES = tuple(name.replace("/", "\u2215") for name in HOSTILE)


def report(root: Path, folder: Path, options: BuildOptions = SMALL, **kwargs: Any) -> Path:
    """Build a dataset and write the report of it, ``report.html`` beside ``out.h5``."""
    build(root, folder / "out.h5", options, on_error="skip")
    write_report(folder / "out.h5", folder / "report.html", **kwargs)
    return folder / "report.html"


def gathered(path: Path) -> Dossier:
    """Return the dossier of a file."""
    with Reader(path) as reader:
        return gather(reader, summary_of(reader), seed=0)


def test_splits_and_balance_are_those_of_the_file(photos: Path, tmp_path: Path) -> None:
    """Rows, shares and the count of each class of each split, against plain h5py."""
    page = read_page(report(photos, tmp_path))
    with h5py.File(tmp_path / "out.h5") as file:
        counts = {split: np.bincount(file[split]["labels"], minlength=2) for split in file if
                  split in ("train", "validation")}  # fmt: skip
        shapes = {split: file[split]["images"].shape for split in counts}
    head, *rows = page.tables["Splits"]
    assert head == ["Split", "Images", "Share", "Shape", "Type", "On disk"]
    assert [row[:5] for row in rows] == [
        [split, str(count), share, " × ".join(map(str, shapes[split])), "uint8"]
        for split, count, share in [("train", 12, "80.0 %"), ("validation", 3, "20.0 %")]
    ]
    assert page.tables["Images of each class"] == [
        ["Class", "train", "validation"],
        *(
            [f"{index}{name}", str(counts["train"][index]), str(counts["validation"][index])]
            for index, name in enumerate(("cat", "dog"))
        ),
    ]
    assert page.tables["Class sizes"][1] == ["train", "2", "0", "8", "6", "4", "2.0×"]
    widths = [float(each["width"].rstrip("%")) for each in page.all("rect")[:4]]
    assert widths == [50, 50, 100, 100]


def test_channel_statistics_can_be_pasted(photos: Path, tmp_path: Path) -> None:
    """The lines are Python, and their numbers those of the stored pixels."""
    text = report(photos, tmp_path).read_text("utf-8")
    lines = re.search(r"<code>(mean = .*?)</code>", text, re.DOTALL)
    assert lines
    pasted: dict[str, list[float]] = {}
    exec(lines[1], {}, pasted)
    with h5py.File(tmp_path / "out.h5") as file:
        pixels = file["train/images"][:] * np.float64(1 / 255)
    assert np.allclose(pasted["mean"], pixels.mean((0, 1, 2)), atol=1e-6)
    assert np.allclose(pasted["std"], pixels.std((0, 1, 2)), atol=1e-6)
    table = read_page(tmp_path / "report.html").tables["Channels"]
    assert [row[:2] for row in table[1:4]] == [["train", c] for c in ("red", "green", "blue")]
    assert [float(row[2]) for row in table[1:4]] == pasted["mean"]


def test_sizes_and_kinds_are_those_of_the_sources(zoo: Path, tmp_path: Path) -> None:
    """The histograms add up, and hold what the columns of the file hold."""
    page = read_page(report(zoo, tmp_path))
    with h5py.File(tmp_path / "out.h5") as file:
        sizes = np.concatenate([file[split]["source_size"] for split in ("train", "validation")])
    rows = len(sizes)
    expected = Counter(f"{height} × {width}" for height, width in sizes)
    table = page.tables["Height × width, most frequent"][1:]
    named = {row[0]: int(row[2]) for row in table if "other" not in row[0]}
    assert named == {name: expected[name] for name in named}
    assert sum(int(row[2]) for row in table) == rows
    longer = page.tables["Longer side, in pixels"][1:]
    sides = Counter(sizes.max(axis=1).tolist())
    assert sum(int(row[2]) for row in longer) == rows
    for row in longer:
        first, last = (int(side) for side in (row[0].split("–") * 2)[:2])
        assert int(row[2]) == sum(sides[side] for side in range(first, max(first, last) + 1))
    kinds = {row[0]: int(row[2]) for row in page.tables["Kind of image"][1:]}
    assert sum(kinds.values()) == rows
    assert {name: kinds[name] for name in ("grayscale", "palette", "CMYK")} == {
        "grayscale": 6, "palette": 2, "CMYK": 1,
    }  # fmt: skip
    traits = {row[0]: int(row[2]) for row in page.tables["Images with"][1:]}
    flags = [split.flags for split in summarize(tmp_path / "out.h5").splits]
    assert traits["transparency"] == sum(each["alpha"] for each in flags)
    assert traits["16 bits per channel"] == sum(each["sixteen_bit"] for each in flags)
    assert traits["smaller than stored"] == int(np.any(sizes < [20, 16], axis=1).sum())


@pytest.mark.parametrize(("fit", "enlarged"), [("stretch", 2), ("crop", 2), ("pad", 1)])
def test_enlarged_images_are_those_of_the_check(tmp_path: Path, fit: Any, enlarged: int) -> None:
    """With --fit pad a side may be short, as long as the other one is not."""
    for i, size in enumerate([(40, 30), (40, 10), (8, 10)]):
        save(tmp_path / "d" / "cat" / f"{i}.png", encoded(photo(*size, seed=i), "PNG"))
    options = BuildOptions(decode=DecodeOptions((20, 16), fit=fit))
    page = read_page(report(tmp_path / "d", tmp_path, options))
    traits = {row[0]: int(row[2]) for row in page.tables["Images with"][1:]}
    found = {each.code: each.count for each in check(tmp_path / "out.h5").problems}
    assert traits["smaller than stored"] == found["upscaled"] == enlarged


def test_it_says_what_the_check_says(zoo: Path, tmp_path: Path) -> None:
    """Every problem that `batchify check` finds, in the same words and order, and no other."""
    shutil.copy(zoo / "dog" / "z.png", zoo / "dog" / "zz.png")
    html = report(zoo, tmp_path).read_text("utf-8")
    verdicts = re.search(r'<ul class="verdicts">(.*?)</ul>', html)
    assert verdicts
    told = re.findall(r'<li class="(?:bad|warn)"><a href="#\w+">(.*?)</a>', verdicts[1])
    problems = check(tmp_path / "out.h5").problems
    assert told == [escape(str(each)) for each in problems]
    assert {"empty-class", "duplicate", "clipped", "alpha-dropped", "upscaled"} <= {
        each.code for each in problems
    }


def test_pictures_are_the_stored_images(tmp_path: Path) -> None:
    """A thumbnail that is not reduced holds the very pixels, enlarged by a whole factor."""
    root = draw_dataset(tmp_path / "d", {"cat": 3}, size=(16, 20), format_name="PNG")
    page = read_page(report(root, tmp_path))
    with h5py.File(tmp_path / "out.h5") as file:
        stored = dict(zip(file["train/paths"].asstr(), file["train/images"], strict=True))
    assert len(page.all("img")) == 3
    for attributes in page.all("img"):
        name = attributes["alt"].removeprefix("cat: ")
        data = base64.b64decode(attributes["src"].partition(",")[2])
        (tmp_path / "picture").write_bytes(data)
        with Image.open(tmp_path / "picture") as image:
            factor = image.height // 20
            assert image.size == (16 * factor, 20 * factor)
            assert np.array_equal(np.asarray(image)[::factor, ::factor], stored[name])


def test_leaks_and_duplicates_are_told_apart(tmp_path: Path) -> None:
    """Each with its splits, rows, classes and paths; a contradiction of classes is said."""
    root = draw_dataset(tmp_path / "d", {"cat": 10, "dog": 10})
    shutil.copy(root / "cat" / "img_000.jpg", root / "cat" / "leak.jpg")  # validation, train
    shutil.copy(root / "dog" / "img_008.jpg", root / "dog" / "copy.jpg")
    shutil.copy(root / "cat" / "img_009.jpg", root / "dog" / "wrong.jpg")
    page = read_page(report(root, tmp_path))
    assert page.tables["Exact duplicates"][1:] == [
        ["train validation", "2", "4"],
        ["train alone", "1", "2"],
    ]
    found = gathered(tmp_path / "out.h5").repeats
    counts = found.counts
    assert (counts.leaks, counts.others, counts.conflicts) == (2, 1, 1)
    with h5py.File(tmp_path / "out.h5") as file:
        for group in (*found.shown_leaks, *found.shown_others):
            assert len({place.path for place in group.shown_rows}) == group.rows == 2
            for place in group.shown_rows:
                assert file[place.split]["paths"][place.row] == place.path
                assert printable(place.path) in page.text
    assert "2 images in several splits; remove the copies, or build with" in page.text
    assert "cat/leak.jpg" in page.text
    assert "The same image in 2 classes." in page.text


def test_a_leak_may_have_copies_within_a_split_too(tmp_path: Path) -> None:
    """An image that is in several splits, and twice in one of them, is told as both."""
    root = draw_dataset(tmp_path / "d", {"cat": 10})
    for name in ("leak.jpg", "twice.jpg"):  # of training; the first images are of validation
        shutil.copy(root / "cat" / "img_000.jpg", root / "cat" / name)
    text = read_page(report(root, tmp_path)).text
    assert text.count("1 image in several splits; ") == 2
    assert text.count("1 of 12 images are copies of others in a split; ") == 2
    assert "No duplicates" not in text


def test_captions_leave_out_what_stands_above(tmp_path: Path) -> None:
    """The class, and in a folder of splits the split; the whole path is in the title."""
    for split in ("train", "validation"):
        save(tmp_path / "d" / split / "cat" / "a.png", encoded(photo(seed=len(split)), "PNG"))
    page = read_page(report(tmp_path / "d", tmp_path))
    paths = [each for each in page.all("span") if each.get("class") == "path"]
    assert [each["title"] for each in paths] == ["train/cat/a.png", "validation/cat/a.png"]
    assert "cat/a" not in page.text


def test_a_leak_of_a_folder_of_splits_is_not_mended_by_a_split(tmp_path: Path) -> None:
    """Which build refuses there."""
    for split in ("train", "validation"):
        save(tmp_path / "d" / split / "cat" / "a.png", encoded(photo(), "PNG"))
    text = read_page(report(tmp_path / "d", tmp_path)).text
    assert "1 image in several splits; remove the copies from all splits but one." in text
    assert "--split" not in text


def test_nothing_is_said_plainly(photos: Path, tmp_path: Path) -> None:
    """A file without duplicates and skipped images says that there are none."""
    text = read_page(report(photos, tmp_path)).text
    for sentence in (
        "No identical image files, within or across splits",
        "No image file is in more than one split.",
        "No image file is in a split twice.",
        "No image was skipped.",
    ):
        assert sentence in text
    assert "several splits" not in text


def test_how_it_was_built_is_told(photos: Path, tmp_path: Path) -> None:
    """Skipped images with reasons, every option, the versions and the command."""
    save(photos / "cat" / "bad.jpg", b"bad")
    page = read_page(report(photos, tmp_path))
    assert page.tables["Skipped images"][1][0] == "cat/bad.jpg"
    assert "not an image" in page.tables["Skipped images"][1][1]
    found = summarize(tmp_path / "out.h5")
    options = {row[0]: row[1] for row in page.tables["Options"][1:]}
    assert set(options) == {name.replace("_", "-") for name in found.config}
    assert options["target-size"] == "20x16"
    assert options["hidden"] == "no"
    assert "batchify build DATASET OUT" in page.text
    assert "--target-size 20x16" in page.text
    assert "--on-error skip" in page.text
    assert found.creator in page.text


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Draw a dataset whose classes and files have hostile names, some of them skipped."""
    root = tmp_path / "d"
    for seed, name in enumerate(HOSTILE_NAMES):
        for i in range(3):
            save(root / name / f"{name}{i}.png", encoded(photo(seed=seed * 9 + i % 2), "PNG"))
        save(root / name / f"bad{name}.png", b"bad")
    return root


def test_names_are_shown_and_do_nothing(hostile: Path, tmp_path: Path) -> None:
    """No name becomes an element or an attribute; all are there, escaped as in a terminal."""
    page = read_page(report(hostile, tmp_path))
    tags = {name for name, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "form", "b", "base"}
    allowed = {
        "alt", "aria-hidden", "aria-label", "aria-labelledby", "charset", "class", "content",
        "dir", "height", "href", "http-equiv", "id", "lang", "name", "rel", "role", "scope", "src",
        "tabindex", "title", "width",
    }  # fmt: skip
    assert {key for _, attributes in page.elements for key in attributes} <= allowed
    assert all(each["src"].startswith("data:image/") for each in page.all("img"))
    assert {each["href"][0] for each in page.all("a")} == {"#"}
    shown = {row[0].lstrip("0123456789") for row in page.tables["Images of each class"][1:]}
    assert shown == {printable(name) for name in HOSTILE_NAMES}
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "\u202e" not in text
    assert str(tmp_path) not in text


def test_its_policy_allows_its_own_style_alone(photos: Path, tmp_path: Path) -> None:
    """No script, no network; the style sheet is the one that the policy names by its hash."""
    html = report(photos, tmp_path).read_text("utf-8")
    style = re.search("<style>(.*?)</style>", html, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = parse(html).all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_links_lead_to_what_is_there(photos: Path, tmp_path: Path) -> None:
    """Every address in the page is an id in it, and no id is there twice."""
    page = read_page(report(photos, tmp_path))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {each["href"][1:] for each in page.all("a")} <= set(ids)
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_it_is_the_same_again(photos: Path, tmp_path: Path) -> None:
    """The same file and seed give the same bytes, wherever they lie; another seed does not."""
    for i in range(60):
        save(photos / "dog" / f"more{i}.jpg", encoded(photo(seed=1000 + i), "JPEG"))
    first = report(photos, tmp_path, seed=3).read_bytes()
    (tmp_path / "far" / "away").mkdir(parents=True)
    shutil.copy(tmp_path / "out.h5", tmp_path / "far" / "away" / "out.h5")
    write_report(tmp_path / "far" / "away" / "out.h5", tmp_path / "other.htm", seed=3)
    assert (tmp_path / "other.htm").read_bytes() == first
    write_report(tmp_path / "out.h5", tmp_path / "other.htm", seed=4)
    assert (tmp_path / "other.htm").read_bytes() != first


@pytest.mark.parametrize(
    ("color_mode", "store"),
    [
        ("rgb", StoreOptions(class_mode="none")),
        ("rgba", StoreOptions(class_mode="categorical", compression="gzip")),
        ("grayscale", StoreOptions(dtype="float32")),
        ("grayscale", StoreOptions(dtype="uint16", class_mode="binary")),
    ],
)
def test_every_kind_of_file_has_a_report(
    photos: Path, tmp_path: Path, color_mode: Any, store: StoreOptions
) -> None:
    """Labels of every form or none, compressed, packed and not, one channel and four."""
    decode = DecodeOptions((20, 16), color_mode)
    page = read_page(report(photos, tmp_path, BuildOptions(decode=decode, store=store)))
    channels = {"rgb": 3, "rgba": 4, "grayscale": 1}[color_mode]
    assert len(page.tables["Channels"]) == 1 + 2 * channels
    if store.class_mode == "none":
        assert "2 classes; no labels are stored." in page.text
        assert not page.tables.keys() & {"Images of each class", "Class sizes"}
    else:
        assert page.tables["Images of each class"][2] == ["1dog", "8", "2"]
    shown = 15 if store.class_mode == "none" else 13  # six of a class at most
    assert len(page.all("img")) == shown


def test_a_split_without_rows_is_told(tmp_path: Path) -> None:
    """One image a class leaves nothing for validation: no bars, no numbers of nothing."""
    root = draw_dataset(tmp_path / "d", {"cat": 1, "dog": 1})
    page = read_page(report(root, tmp_path))
    assert page.tables["Splits"][2][:3] == ["validation", "0", "0 %"]
    assert "This split is empty." in page.text
    assert "nan" not in page.text.lower()
    assert {row[0] for row in page.tables["Channels"][1:]} == {"train"}


def test_thousands_of_classes_stay_readable(tmp_path: Path) -> None:
    """The largest and the smallest are drawn, the others are listed in a fold, up to a bound."""
    root = tmp_path / "d"
    data = [encoded(photo(8, 8, seed=i), "PNG") for i in range(4)]
    for i in range(1010):
        for k in range(1 + (i == 7) * 3):
            save(root / f"class_{i:04}" / f"{k}.png", data[k])
    options = BuildOptions(decode=DecodeOptions((4, 4)), split=SplitOptions(validation=0))
    page = read_page(report(root, tmp_path, options))
    assert page.tables["Largest classes"][1] == ["7class_0007", "4"]
    assert len(page.tables["Smallest classes"]) == 11
    assert len(page.tables["All classes"]) == 1001
    assert "… and 10 classes more" in page.text
    assert "36 images of 36 of 1,010 classes, drawn with seed 0." in page.text
    assert len(page.all("img")) == 36 + 1


def test_no_file_makes_a_large_page(photos: Path, tmp_path: Path) -> None:
    """All that is listed at its bound, of the names that take most: still below 3 MB."""
    report(photos, tmp_path)
    dossier = gathered(tmp_path / "out.h5")
    name, path = b'"' * 255, b'"' * 4000
    classes = (name,) * (1 << 17)
    place = RepeatedRow("validation", 10**12, path, name)
    picture = replace(dossier.galleries[0].pictures[0], path=path, class_name=name, uri="")
    group = RepeatedImage(picture, 10**9, (place,) * 6, classes)
    splits = []
    for split in ("train", "validation", "test"):
        counts = (10**12,) * len(classes)
        splits.append(replace(dossier.summary.splits[0], name=split, class_counts=counts))
    summary = replace(
        dossier.summary,
        classes=classes,
        splits=tuple(splits),
        creator='"' * 9000,
        config={f"{i:02}" + '"' * 900: ['"' * 900] * 64 for i in range(64)},
        skipped=(Skipped(path, '"' * 4000),) * 10_000,
    )
    galleries = tuple(
        replace(dossier.galleries[0], split=split, pictures=(picture,) * most)
        for split, most in report_data.SHOWN.items()
    )
    between = ((("train", "test"), 10**9, 10**9),) * 7
    repeated = RepeatCounts(10**9, 10**9, 10**9, 10**9, 10**9, between)
    repeats = Repeats(repeated, (group,) * 12, (group,) * 12)
    dossier = replace(dossier, name=name, summary=summary, galleries=galleries, repeats=repeats,
                    command='"' * 100_000)  # fmt: skip
    assert len(render(dossier).encode()) + report_data.ALBUM_NBYTES < MOST_NBYTES


def test_pictures_stop_where_the_page_would_grow(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the bytes of all pictures the rest are named without one, the copies kept longest."""
    monkeypatch.setattr(report_data, "ALBUM_NBYTES", 9000)
    shutil.copy(photos / "dog" / "img_009.jpg", photos / "dog" / "zz.jpg")
    page = read_page(report(photos, tmp_path))
    pictures = page.all("img")
    assert 1 <= len(pictures) < 14
    assert sum(len(each["src"]) for each in pictures) <= 9000
    assert page.text.count("not shown, to keep the page small") == 14 - len(pictures)
    assert gathered(tmp_path / "out.h5").repeats.shown_others[0].picture.uri


def test_noise_of_any_size_fits_the_album(tmp_path: Path) -> None:
    """Images that do not compress, at the sizes where pictures take most: none is left out."""
    noise = np.random.RandomState(0).randint(0, 256, (36, 128, 128, 3), np.uint8)
    for i, pixels in enumerate(noise):
        save(tmp_path / "d" / "a" / f"{i}.png", encoded(Image.fromarray(pixels), "PNG"))
    for side in (80, 81, 128):
        options = BuildOptions(
            decode=DecodeOptions((side, side)), split=SplitOptions(validation=0),
            store=StoreOptions(class_mode="none"),
        )  # fmt: skip
        build(tmp_path / "d", tmp_path / f"{side}.h5", options)
        pictures = gathered(tmp_path / f"{side}.h5").galleries[0].pictures
        assert len(pictures) == 36
        nbytes = sum(len(picture.uri) for picture in pictures)
        assert all(picture.uri for picture in pictures), nbytes


def test_damage_is_shown_and_told(photos: Path, tmp_path: Path) -> None:
    """A row that is not what was written does not hide the others, and is not passed over."""
    report(photos, tmp_path)
    with Reader(tmp_path / "out.h5") as reader:
        offset = next(reader.row_offsets()["train/images"].extents(4, 5))[0]
    data = bytearray((tmp_path / "out.h5").read_bytes())
    data[offset] ^= 1
    (tmp_path / "out.h5").write_bytes(data)
    write_report(tmp_path / "out.h5", tmp_path / "report.html")
    page = read_page(tmp_path / "report.html")
    assert "1 image of those shown: damaged" in page.text
    assert sum(each["alt"].startswith("Damaged. ") for each in page.all("img")) == 1


def test_places_that_cannot_be_are_refused(photos: Path, tmp_path: Path) -> None:
    """Another ending, a folder, a folder that is missing, the file itself, a seed that is none."""
    build(photos, tmp_path / "out.html", SMALL)
    (tmp_path / "folder.html").mkdir()
    before = (tmp_path / "out.html").read_bytes()
    for name, kind, message in [
        ("report.pdf", OptionError, "must end with .html or .htm"),
        ("folder.html", OutputPathError, "is a folder"),
        ("none/report.html", OutputPathError, "there is no folder"),
        ("out.html", OutputPathError, "is the file to read"),
    ]:
        with pytest.raises(kind, match=message):
            write_report(tmp_path / "out.html", tmp_path / name)
    with pytest.raises(OptionError, match="seed"):
        write_report(tmp_path / "out.html", tmp_path / "report.html", seed=-1)
    assert (tmp_path / "out.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.html", "out.html", "photos"]


def test_the_command_writes_it(run: Run, photos: Path, tmp_path: Path) -> None:
    """With the name and size of what was written; refusals are errors, without a traceback."""
    run("build", photos, "out.h5", "--target-size", "20x16")
    done = run("inspect", "out.h5", "--report", "report.html", "--seed", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^report: report\.html, [\d.]+ kB, seed 5$", done.stdout, re.MULTILINE)
    assert "drawn with seed 5" in read_page(tmp_path / "report.html").text
    done = run("inspect", "out.h5", "--report", "report.txt")
    assert done.returncode == 2
    assert "report.txt must end with .html or .htm" in done.stderr
    done = run("inspect", "out.h5", "--report", "none/report.html")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: none/report.html: there is no folder")


@given(st.dictionaries(st.integers(0, 2**31 - 1), st.integers(1, 9), min_size=1, max_size=40))
def test_bins_hold_every_side_once(sides: dict[int, int]) -> None:
    """Without gaps or overlap, no more than fit the page, whatever the sides are."""
    bins = image_stats._bins(np.array(list(sides)), np.array(list(sides.values())))
    assert 1 <= len(bins) <= image_stats.MOST_BINS
    assert all(each.first <= each.last for each in bins)
    assert all(a.last + 1 == b.first for a, b in pairwise(bins))
    for each in bins:
        inside = [count for side, count in sides.items() if each.first <= side <= each.last]
        assert each.count == sum(inside)
    assert sum(each.count for each in bins) == sum(sides.values())


def test_shares_do_not_lie() -> None:
    """What is not nothing is not called 0, and what is not all is not called 100."""
    shares = [share_text(*each) for each in [(0, 9), (1, 10**6), (999_999, 10**6), (9, 9), (0, 0)]]
    assert shares == ["0 %", "< 0.1 %", "> 99.9 %", "100 %", "0 %"]
