"""`batchify export --format imagefolder`: folders of classes, and the names of their files."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.exported import assert_rows, stored_rows, tree
from helpers.packing import members, pack
from helpers.tabled import listed, write_table
from PIL import Image

import batchify


@pytest.mark.parametrize("store", ["decoded", "encoded"])
def test_folders_hold_the_images_of_each_class(photos: Path, tmp_path: Path, store: Any) -> None:
    """Under their own names; pixels as PNG, JPEG or WebP, image files as they are."""
    out = tmp_path / "out.h5"
    batchify.build(photos, out, target_size=(12, 10), store=store)
    ways: dict[str, Any] = {"": {}}
    if store == "decoded":
        ways = {"png": {}, "webp": {"image_format": "webp"}, "jpg": {"image_format": "jpeg"}}
    for ending, way in ways.items():
        target = tmp_path / f"folders{ending}"
        batchify.export(out, target, format="imagefolder", workers=1, **way)
        expected = {}
        for split in ("train", "validation"):
            for image, _, path in stored_rows(out, split):
                name = f"{path.rpartition('.')[0]}.{ending}" if ending else path
                expected[f"{split}/{name}"] = image
        found = tree(target)
        assert sorted(found) == sorted(expected)
        for name, image in expected.items():
            if ending != "jpg":
                assert_rows([(found[name], 0, "")], [(image, 0, "")])
            else:
                assert Image.open(io.BytesIO(found[name])).size == (10, 12)


@pytest.mark.filterwarnings("ignore::batchify.BatchifyWarning")
def test_originals_are_copied_or_linked(photos: Path, tmp_path: Path) -> None:
    """After they were compared with their SHA-256; also out of an archive."""
    out = tmp_path / "out.h5"
    batchify.build(photos, out, target_size=(12, 10))
    archive = pack(tmp_path / "photos.zip", members(photos))
    links: list[Any] = ["copy", "hard", "symbolic"]
    for i, (source, link) in enumerate([*((photos, each) for each in links), (archive, "copy")]):
        target = tmp_path / f"folders{i}"
        batchify.export(out, target, format="imagefolder", source=source, link=link, workers=1)
        found = sorted(path for path in target.rglob("*.jpg"))
        assert len(found) == 15
        for path in found:
            original = photos / path.relative_to(target).as_posix().partition("/")[2]
            assert path.read_bytes() == original.read_bytes()
            assert path.is_symlink() == (link == "symbolic")
            assert path.samefile(original) == (link != "copy")
    with pytest.raises(batchify.OptionError, match=r"photos\.zip is not a folder of image files"):
        batchify.export(out, tmp_path / "x", format="imagefolder", source=archive, link="hard")
    inside = photos / "x"
    with pytest.raises(batchify.OutputPathError, match="is inside the dataset folder"):
        batchify.export(out, inside, format="imagefolder", source=photos)
    changed = photos / "cat" / "img_002.jpg"
    save(changed, encoded(photo(seed=77), "JPEG"))
    for reason in ("its content has changed", "there is no such file"):
        with pytest.raises(batchify.DatasetError, match=f"cat/img_002.jpg of --source: {reason}"):
            batchify.export(out, tmp_path / "x", format="imagefolder", source=photos, workers=1)
        assert not (tmp_path / "x").exists()
        changed.unlink(missing_ok=True)


def test_names_that_collide_or_do_not_fit(tmp_path: Path) -> None:
    """Two rows never share a file, and a class may be called anything."""
    photos = draw_dataset(tmp_path / "photos", {"a": 2, "b": 2, "c": 2})
    (photos / "c" / "img_000.jpg").rename(photos / "c" / "IMG_000.jpg")
    classes = ["x/y", "x/y", "x/y", "..", "x/y", ".."]
    rows = [{"path": p, "label": c} for p, c in zip(listed(photos), classes, strict=True)]
    table = write_table(tmp_path / "labels.csv", rows)
    out, target = tmp_path / "out.h5", tmp_path / "folders"
    batchify.build(
        photos, out, manifest=table, target_size=(12, 10), validation_split=0.0, shuffle=False
    )
    batchify.export(out, target, format="imagefolder", workers=1)
    stored = stored_rows(out, "train")
    found = {path.relative_to(target).as_posix(): path for path in target.rglob("*.png")}
    row = {path: i for i, (_, _, path) in enumerate(stored)}
    assert found.keys() == {
        "train/x%2Fy/img_000.png",
        "train/x%2Fy/img_001.png",
        f"train/x%2Fy/img_000-row{row['b/img_000.jpg']}.png",
        f"train/x%2Fy/IMG_000-row{row['c/IMG_000.jpg']}.png",
        "train/%2E./img_001.png",
        f"train/%2E./img_001-row{row['c/img_001.jpg']}.png",
    }
    images = [np.asarray(Image.open(path)).tobytes() for path in found.values()]
    assert sorted(images) == sorted(image.tobytes() for image, *_ in stored)  # type: ignore[union-attr]


def test_names_that_are_too_long_are_cut(tmp_path: Path) -> None:
    """With the number of the row, so that they stay different; a long class is refused early."""
    names = [f"{'é' * 125}{i}.dat" for i in range(3)] + ["é" * 124 + "1.png"]
    rows = []
    for i, name in enumerate(names):
        save(tmp_path / "data" / name, encoded(photo(10, 12, i), "PNG"))
        rows.append({"path": name, "label": "cat"})
    options: dict[str, Any] = {
        "manifest": write_table(tmp_path / "t.csv", rows), "target_size": (12, 10),
        "validation_split": 0.0, "shuffle": False, "extensions": ["dat"],
    }  # fmt: skip
    out, target = tmp_path / "out.h5", tmp_path / "x"
    batchify.build(tmp_path / "data", out, **options)
    batchify.export(out, target, format="imagefolder", workers=1)
    found = sorted(path.name for path in (target / "train" / "cat").iterdir())
    assert found == sorted([names[3], *(f"{'é' * 115}-row{i}.dat.png" for i in range(3))])
    assert max(len(name.encode()) for name in found) <= 255
    options["manifest"] = write_table(
        tmp_path / "t.csv", [{**row, "label": "a/" * 90} for row in rows]
    )
    batchify.build(tmp_path / "data", out, overwrite=True, **options)
    with pytest.raises(
        batchify.OptionError, match=r"name of the class (a/)+… is too long for a folde"
    ):
        batchify.export(out, tmp_path / "y", format="imagefolder", workers=1)
    assert not list(tmp_path.glob("y*"))


def test_an_error_that_no_repetition_mends_leaves_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier export that was interrupted is kept if this one has not begun."""

    def stop(state: batchify.Progress) -> None:
        if state.done == 12:
            raise KeyboardInterrupt

    batchify.build(photos, tmp_path / "out.h5", target_size=(12, 10))
    options: dict[str, Any] = {"format": "imagefolder", "source": photos, "workers": 1}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        batchify.export(tmp_path / "out.h5", tmp_path / "x", progress=stop, **options)
    with pytest.raises(batchify.OptionError, match="exclude each other"):
        batchify.export(tmp_path / "out.h5", tmp_path / "x", image_format="png", **options)
    assert (tmp_path / "x.partial").exists()
    monkeypatch.setattr("os.link", _fail)
    for path in (tmp_path / "out.h5", photos):
        options["source"] = None if path == photos else photos
        with pytest.raises(batchify.OutputPathError, match="use --link copy"):
            batchify.export(path, tmp_path / "x", link="hard", **options)
        assert sorted(tmp_path.iterdir()) == before


def _fail(*_: object) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def test_no_image_is_hidden(tmp_path: Path) -> None:
    """Readers ignore hidden files: a row of a table would be lost."""
    for i, name in enumerate((".a.png", "b.png")):
        save(tmp_path / "photos" / name, encoded(photo(10, 12, i), "PNG"))
    rows = [{"path": name, "label": "cat"} for name in (".a.png", "b.png")]
    table = write_table(tmp_path / "labels.csv", rows)
    common: dict[str, Any] = {"target_size": (12, 10), "validation_split": 0.0, "workers": 1}
    out = tmp_path / "out.h5"
    batchify.build(tmp_path / "photos", out, manifest=table, **common)
    ways: list[dict[str, Any]] = [{}, {"source": tmp_path / "photos"}]
    for i, way in enumerate(ways):
        target = tmp_path / f"folders{i}"
        batchify.export(out, target, format="imagefolder", workers=1, **way)
        found = sorted(path.name for path in target.rglob("*.png"))
        assert found == ["%2Ea.png", "b.png"]
        again = batchify.build(target, tmp_path / f"again{i}.h5", **common)
        assert again.plan.images == 2


PNG, JPEG = (encoded(photo(10, 12, seed=i), name) for i, name in enumerate(("PNG", "JPEG")))
DRAWN = {
    "cat/a.png": PNG, "cat/a.jpg": JPEG, "cat/b.JPEG": JPEG, "cat/c.png": JPEG,
    "dog/a.png": PNG, "dog/x/a.png": PNG, "dog/b.jfif": JPEG,
}  # fmt: skip
"""Two images with one stem, a JPEG that is called PNG, and a name twice."""


NAMES = {
    "encoded": ("a.jpg", "a.png", "b.JPEG", "c.jpg", "a.png", "b.jfif", "a-row6.png"),
    "jpeg": ("a.jpg", "a-row1.jpg", "b.JPEG", "c.jpg", "a.jpg", "b.jfif", "a-row6.jpg"),
    "png": ("a.png", "a-row1.png", "b.png", "c.png", "a.png", "b.png", "a-row6.png"),
    "source": ("a.jpg", "a.png", "b.JPEG", "c.png", "a.png", "b.jfif", "a-row6.png"),
}
"""Their names, by how they are stored; of originals, those that they have."""


@pytest.mark.parametrize("store", [*NAMES, "webp", "decoded"])
def test_endings_are_those_of_the_images(tmp_path: Path, store: Any) -> None:
    """Whether they are kept byte for byte or encoded again; originals keep their names."""
    data, out, target = (tmp_path / name for name in ("data", "out.h5", "folders"))
    for path, image in DRAWN.items():
        save(data / path, image)
    options: dict[str, Any] = {} if store == "source" else {"store": store}
    if store in ("jpeg", "png", "webp"):
        options["keep_fitting"] = True
    batchify.build(
        data, out, target_size=(12, 10), shuffle=False, extensions=["jfif"], validation_split=0.0,
        **options,
    )  # fmt: skip
    source = data if store == "source" else None
    batchify.export(out, target, format="imagefolder", source=source, workers=1)
    names = NAMES.get(store) or [name.replace(".png", ".webp") for name in NAMES["png"]]
    if store == "decoded":
        names = NAMES["png"]
    found = sorted(path for path in (target / "train").rglob("*") if path.is_file())
    expected = {f"{'cat' if row < 4 else 'dog'}/{name}" for row, name in enumerate(names)}
    assert {path.relative_to(target / "train").as_posix() for path in found} == expected
    for file in found:
        ending = file.suffix.lower().replace(".jfif", ".jpg").replace(".jpeg", ".jpg")
        kind = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[ending]
        with Image.open(file) as opened:
            assert store == "source" or opened.format == kind
    if store in ("encoded", "jpeg", "source"):
        kept = (target / "train" / "cat" / ("c.png" if store == "source" else "c.jpg")).read_bytes()
        assert kept == JPEG
