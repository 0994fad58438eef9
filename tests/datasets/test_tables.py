"""Tables that people have: their columns, what parts them, and how they name the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.packing import members, pack
from helpers.running import Run
from helpers.tabled import SUFFIXES, listed, options_of, write_table

import batchify
from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.checking.verify import verify
from batchify.dataset_options import ManifestOptions
from batchify.datasets.manifest import read_dataset
from batchify.errors import ManifestError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.storage.tree import FolderTree


def read(root: Path, table: Path, mode: str = "sparse", **manifest: object) -> dict[str, str]:
    """Return the class of each file that a table lists."""
    options = BuildOptions(
        decode=DecodeOptions((8, 8)),
        store=StoreOptions(class_mode=mode),  # type: ignore[arg-type]
        manifest=ManifestOptions(str(table), **manifest),  # type: ignore[arg-type]
    )
    found = read_dataset(root, options)
    return {
        found.samples.path(i).decode(): found.classes[label].decode()
        for i, label in enumerate(found.samples.labels.tolist())
    }


def refused(root: Path, table: Path, mode: str = "sparse", **manifest: object) -> str:
    """Return why a table is refused."""
    with pytest.raises(ManifestError) as caught:
        read(root, table, mode, **manifest)
    assert caught.value.exit_code == 1
    return str(caught.value)


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    """Return a folder of images without classes: dogs/train/0000.jpg."""
    for i in range(6):
        save(tmp_path / "dogs" / "train" / f"{i:04}.jpg", encoded(photo(8, 8, i), "JPEG"))
    return tmp_path / "dogs"


def test_a_table_of_ids_and_breeds_is_understood(run: Run, dogs: Path) -> None:
    """The paths are in the column whose ids find files, the labels in the other (case L11)."""
    rows = [{"id": f"{i:04}", "breed": ["pug", "boxer"][i % 2]} for i in range(6)]
    write_table(dogs.parent / "labels.csv", rows)
    for out, more in (("a.h5", []), ("b.h5", ["--path-column", "id", "--label-columns", "breed"])):
        done = run("build", "dogs", out, "--manifest", "labels.csv", *more, "--target-size", "8")
        assert done.returncode == 0, done.stderr
    assert (dogs.parent / "a.h5").read_bytes() == (dogs.parent / "b.h5").read_bytes()
    with h5py.File(dogs.parent / "a.h5") as file:
        assert file.attrs["classes"].tolist() == [b"boxer", b"pug"]
        for path, label in zip(file["train/paths"], file["train/labels"], strict=True):
            number = int(path.decode().removeprefix("train/").removesuffix(".jpg"))
            assert label == 1 - number % 2
    assert verify(dogs.parent / "a.h5", source=dogs, redecode="all").is_ok
    run("inspect", "a.h5", "--report", "r.html")
    assert "--label-columns breed" in (dogs.parent / "r.html").read_text()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_finds_its_columns(tmp_path: Path, dogs: Path, suffix: str) -> None:
    """In any case of the names, and whatever else the table has."""
    rows = [
        {"Unnamed: 0": i, "width": 8, "Image_ID": f"{i:04}", "Class": "ab"[i % 2]} for i in range(6)
    ]
    table = write_table(tmp_path / f"t{suffix}", rows)
    assert read(dogs, table) == {f"train/{i:04}.jpg": "ab"[i % 2] for i in range(6)}


@pytest.mark.parametrize("path", ["file_name", "filename", "image", "Image Path", "img", "Bild"])
@pytest.mark.parametrize("label", ["class", "category", "target", "breed", "Finding"])
def test_usual_names_are_found(tmp_path: Path, photos: Path, path: str, label: str) -> None:
    """A column whose values name files is that of the paths, whatever it is called."""
    rows = [{label: file.split("/")[0], path: file} for file in listed(photos)]
    table = write_table(tmp_path / "t.csv", rows)
    assert read(photos, table) == {file: file.split("/")[0] for file in listed(photos)}


def test_where_several_columns_qualify_the_build_stops(
    run: Run, tmp_path: Path, photos: Path
) -> None:
    """It names them and the option, and writes nothing; with the option, it builds."""
    rows = [
        {"file_name": file, "image": other, "class": "a", "category": "b"}
        for file, other in zip(listed(photos), reversed(listed(photos)), strict=True)
    ]
    write_table(tmp_path / "t.csv", rows)
    done = run("build", "photos", "out.h5", "--manifest", "t.csv")
    assert done.returncode == 1
    assert "several columns that may be the paths: file_name, image; choose with --path-column" in (
        done.stderr
    )
    done = run("build", "photos", "out.h5", "--manifest", "t.csv", "--path-column", "IMAGE")
    assert done.returncode == 1
    assert (
        "several columns that may be the labels: class, category; choose with --label-columns"
        in (done.stderr)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "t.csv"]
    done = run("build", "photos", "out.h5", "--manifest", "t.csv", "--path-column", "image",
               "--label-columns", "Class")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_dataset_is_walked_once_for_all_columns(
    tmp_path: Path, dogs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that may hold the paths, and the rows themselves, are looked up in one listing."""
    (tmp_path / "t.csv").write_text("id,image,name,breed\n0000,7,x,pug\n0001,8,y,beagle\n")
    list_folder, seen = FolderTree.list_folder, []

    def listing(tree: FolderTree, path: bytes) -> Any:
        seen.append(path)
        return list_folder(tree, path)

    monkeypatch.setattr(FolderTree, "list_folder", listing)
    assert len(read(dogs, tmp_path / "t.csv")) == 2
    assert len(seen) == len(set(seen)) > 0


def test_names_decide_where_values_do_not(tmp_path: Path, dogs: Path) -> None:
    """A number of the row is no path, a whole path comes before an id, the rest is not read."""
    rows = [{"id": i, "Bild": f"train/{i:04}.jpg", "y": "ab"[i % 2], "note": "x"} for i in range(6)]
    wanted = {f"train/{i:04}.jpg": "ab"[i % 2] for i in range(6)}
    assert read(dogs, write_table(tmp_path / "number.csv", rows)) == wanted
    rows = [{**row, "id": f"{row['id']:04}"} for row in rows]
    table = write_table(tmp_path / "both.csv", rows)
    assert "may be the paths: id, Bild; choose with --path-column" in refused(dogs, table)
    assert read(dogs, table, path_column="id") == wanted
    rows = [{**row, "file": row.pop("Bild")} for row in map(dict, rows)]
    assert read(dogs, write_table(tmp_path / "file.csv", rows)) == wanted


def test_documented_names_leave_no_doubt(tmp_path: Path, photos: Path) -> None:
    """`path` and `label` are taken, whatever else may be meant."""
    rows = [
        {"file": file, "class": "x", "path": file, "label": file.split("/")[0]}
        for file in listed(photos)
    ]
    assert set(read(photos, write_table(tmp_path / "t.csv", rows)).values()) == {"cat", "dog"}


def test_what_is_not_found_is_told(tmp_path: Path, photos: Path) -> None:
    """With the columns there are, and the option."""
    table = tmp_path / "t.csv"
    for text, mode, message in (
        ("a,b\n1,2\n", "sparse", "has no column path, only a, b; --path-column names"),
        ("path,a,b\ncat/img_000.jpg,1,2\n", "sparse", "may be the labels: a, b; choose with"),
        ("path\ncat/img_000.jpg\n", "sparse", "has no column label, only path; --label-columns"),
        ("id,y\n7,a\n", "sparse", "line 2: 7: there is no such file, and none with this name"),
        ("path,a,b\ncat/img_000.jpg,1,0\n", "multilabel", "labels: a, b; choose with --label-"),
        ("path,PATH,y,y\ncat/img_000.jpg,x,a,b\n", "sparse", "has 2 columns y; keep one"),
        ("id,name,y\n7,8,a\n", "sparse", "may be the paths: id, name; choose with --path-column"),
    ):
        table.write_text(text)
        assert message in refused(photos, table, mode), text
    table.write_text("a,b\n1,2\n")
    assert "has no column file, only a, b" in refused(photos, table, path_column="file")


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_what_parts_the_values_is_recognised(
    tmp_path: Path, photos: Path, mark: str, name: str
) -> None:
    """Commas, semicolons and tabs, whatever the file is called; quoted ones are text."""
    lines = [mark.join(['"path"', "label", '"a , or ; b"'])]
    lines += [mark.join([f'"{f}"', f.split("/")[0], '"x;y,z"']) for f in listed(photos)]
    (tmp_path / name).write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    assert set(read(photos, tmp_path / name, label_columns=("label",)).values()) == {"cat", "dog"}


def test_a_semicolon_within_the_values_parts_nothing(tmp_path: Path, photos: Path) -> None:
    """The header must agree."""
    lines = ["path,label", *(f"{file},a;b;c" for file in listed(photos))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert set(read(photos, tmp_path / "t.csv").values()) == {"a;b;c"}


def test_other_encodings_are_refused_in_plain_words(tmp_path: Path, photos: Path) -> None:
    """Latin-1 and UTF-16, as Excel writes them, would change names in silence."""
    text = "path;label\ncat/img_000.jpg;Löwe\n"
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    assert "line 2: it is not UTF-8" in refused(photos, tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(text.encode("utf-16"))
    assert "save the table as UTF-8" in refused(photos, tmp_path / "t.csv")


def test_backslashes_are_slashes_where_nothing_else_is_there(tmp_path: Path, photos: Path) -> None:
    """A file whose name has one is taken first; what leads out stays refused."""
    rows = [{"path": f.replace("/", "\\"), "label": f.split("/")[0]} for f in listed(photos)]
    table = write_table(tmp_path / "t.csv", rows)
    assert read(photos, table) == {file: file.split("/")[0] for file in listed(photos)}
    save(photos / "cat\\img_000.jpg", encoded(photo(8, 8), "JPEG"))
    assert "cat\\img_000.jpg" in read(photos, table)
    for path, message in (
        ("cat\\no.jpg", "cat\\\\no.jpg: there is no such file"),
        ("cat\\..\\..\\x.jpg", 'it has ".."'),
    ):
        table.write_text(f"path,label\n{path},a\n")
        assert message in refused(photos, table)


@pytest.mark.parametrize("packed", [False, True])
def test_names_without_folder_or_ending_find_their_one_file(
    tmp_path: Path, photos: Path, packed: bool
) -> None:
    """In a folder and in an archive; what may be two files is an error that names both."""
    save(photos / "more" / "deep" / "last.one.JPG", encoded(photo(8, 8), "JPEG"))
    save(photos / "cat" / ".hidden" / "img_000.jpg", encoded(photo(8, 8), "JPEG"))
    (photos / "more" / "last.txt").write_text("no image")
    source = pack(tmp_path / "photos.zip", members(photos)) if packed else photos
    table = tmp_path / "t.csv"
    names = ["cat/img_000", "last.one", "deep/last.one.JPG", "dog/img_001.jpg"]
    table.write_text("\n".join(["id,label", *(f"{name},x" for name in names[:2] + names[3:])]))
    found = ["cat/img_000.jpg", "more/deep/last.one.JPG", "dog/img_001.jpg"]
    assert list(read(source, table)) == found
    if packed:
        options = options_of(table, columns=())
        build(source, tmp_path / "zip.h5", options)
        build(photos, tmp_path / "folder.h5", options)
        assert (tmp_path / "zip.h5").read_bytes() == (tmp_path / "folder.h5").read_bytes()
        assert not find_changes(source, tmp_path / "zip.h5", options).is_due
    for name, message in (
        (
            "img_000",
            "line 2: img_000: it may be cat/img_000.jpg or dog/img_000.jpg; give the whole",
        ),
        ("img_001.jpg", "it may be cat/img_001.jpg or dog/img_001.jpg"),
        ("g_000", "line 2: g_000: there is no such file, and none with this name and the ending"),
        ("more/last.txt", "line 2: more/last.txt: not taken because of its ending"),
        ("ca/img_000", "there is no such file"),
    ):
        table.write_text(f"id,label\n{name},x\n")
        assert message in refused(source, table), name
    table.write_text("id,label\ncat/img_000,x\ncat/img_000.jpg,x\n")
    assert "line 3: cat/img_000.jpg is on line 2 already" in refused(source, table)
    save(photos / "cat" / "img_002.png", encoded(photo(8, 8), "PNG"))
    table.write_text("id,label\ncat/img_002,x\n")
    assert "it may be cat/img_002.jpg or cat/img_002.png" in refused(photos, table)


def test_masks_are_found_by_their_column(tmp_path: Path) -> None:
    """`mask` is the label, `image` the path, though both name files; ids find files, too."""
    root = draw_dataset(tmp_path / "data", {"images": 2}, size=(8, 8), format_name="PNG")
    rows = []
    for i in range(2):
        save(root / "masks" / f"m{i}.png", encoded(photo(8, 8, i, "L"), "PNG"))
        rows.append({"mask": f"m{i}", "image": f"images/img_{i:03}.png"})
    table = write_table(tmp_path / "t.csv", rows)
    options = BuildOptions(
        store=StoreOptions(class_mode="mask"), manifest=ManifestOptions(str(table))
    )
    found = read_dataset(root, options)
    assert found.classes == (b"mask",)
    assert found.annotations.masks is not None
    assert [found.annotations.masks.path(i) for i in range(2)] == [b"masks/m0.png", b"masks/m1.png"]


PAGE: dict[str, tuple[str, dict[str, Any], str]] = {
    "table": ("path,label\ncat/1.jpg,a", {}, "cat/1.jpg=a"),
    "ids": ("id,breed\n0000,pug", {}, "train/0000.jpg=pug"),
    "spreadsheet": ("File;Class\ncat/1.jpg;cat", {}, "cat/1.jpg=cat"),
    "backslashes": ("path,label\ncat\\1.jpg,a", {}, "cat/1.jpg=a"),
    "several-columns": (
        "file,image,class,category\ncat/1.jpg,cat/2.jpg,a,b",
        {"path_column": "image", "label_columns": ("class",)},
        "cat/2.jpg=a",
    ),
    "unlabelled-rows": (
        "path,label\ncat/1.jpg,\ncat/2.jpg,a",
        {"unlabelled": "drop"},
        "cat/2.jpg=a",
    ),
    "paths-alone": ("file\ncat/1.jpg", {"mode": "none"}, "cat/1.jpg=unlabelled"),
}


@pytest.mark.parametrize("name", PAGE)
def test_the_page_about_data_is_true(tmp_path: Path, name: str) -> None:
    """Each row of its tables: what is found, or with which option the build goes on."""
    for path in ("cat/1.jpg", "cat/2.jpg", "train/0000.jpg"):
        save(tmp_path / "data" / path, encoded(photo(8, 8), "JPEG"))
    text, options, wanted = PAGE[name]
    table = tmp_path / "t.csv"
    table.write_text(text)
    if options:
        refused(tmp_path / "data", table)
    found = read(tmp_path / "data", table, **options)
    assert [f"{path}={label}" for path, label in found.items()] == [wanted]
    page = (Path(batchify.__file__).parent / "docs" / "data.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in page
