"""Refuse a dataset of which ``keras.utils.image_dataset_from_directory`` would take other files.

With ``--split keras-utils``, the files are those that it lists: see ``index_directory`` in
``keras/src/utils/dataset_utils.py`` of Keras 3. Its split depends on all of them.
"""

from __future__ import annotations

from batchify.common.text import printable
from batchify.datasets.dataset import Samples
from batchify.datasets.layout import Layout
from batchify.datasets.walk import Walk
from batchify.errors import DatasetError
from batchify.storage.hidden import is_hidden

_KERAS = "image_dataset_from_directory"


def check_keras_utils(walk: Walk, layout: Layout, samples: Samples, entered: bytes) -> None:
    """Refuse a dataset whose files are not those that Keras would split.

    Parameters
    ----------
    entered : bytes
        The path of the folder with the class folders, if the dataset holds nothing else.

    Raises
    ------
    DatasetError
        With the first file or folder that Keras takes, but a build does not.
    """
    if layout.name != "classes":
        raise DatasetError(
            f"dataset {walk.name} is split into folders already "
            f"({', '.join(part.split for part in layout.parts)}), and --split keras-utils divides "
            "class folders: remove it, or build from one of these folders"
        )
    if entered:
        raise DatasetError(
            f"dataset {walk.name}: {_KERAS} of Keras takes its only folder, {printable(entered)}, "
            f"as a class; build from that folder, and give it to {_KERAS}, too"
        )
    problem = f"dataset {walk.name}: {_KERAS} of Keras takes"
    advice = "pass --hidden to take them, too, or remove them"
    if walk.system_folders:
        name = printable(min(walk.system_folders))
        raise DatasetError(f"{problem} folders of the system as classes, such as {name}; {advice}")
    if not walk.options.hidden and (path := _hidden_path(samples)):
        raise DatasetError(
            f"{problem} hidden files and folders in classes, such as {printable(path)}; {advice}"
        )
    for entry in walk.skipped:
        # neither follows links to folders inside a class
        if not entry.reason.startswith("link to a folder") or b"/" not in entry.path:
            raise DatasetError(
                f"{problem} {printable(entry.path)}, which a build does not read: {entry.reason}; "
                "remove it"
            )


def _hidden_path(samples: Samples) -> bytes:
    """Return the path of the first image that is hidden, or in a hidden folder of a class."""
    for _, paths in samples.pieces():
        for path in paths:
            if any(map(is_hidden, path.split(b"/")[1:])):
                return path
    return b""
