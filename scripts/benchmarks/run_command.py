"""Run one of the programs that are compared, as a whole process: run_command.py NAME ARGUMENT..."""

from __future__ import annotations

import contextlib
import os
import sys


def decode_only(dataset: str, size: str, workers: str) -> None:
    """Read, decode and resize every image in worker processes, and drop the pixels."""
    import multiprocessing
    from pathlib import Path

    paths = sorted(map(str, Path(dataset).glob("*/*.jpg")))
    jobs = [(path, int(size)) for path in paths]
    with multiprocessing.get_context("spawn").Pool(int(workers)) as pool:
        for _ in pool.imap_unordered(_decode, jobs, chunksize=max(1, min(256, len(jobs) // 64))):
            pass


def _decode(job: tuple[str, int]) -> None:
    import io

    import numpy as np
    from PIL import Image

    path, size = job
    with open(path, "rb") as file:
        image: Image.Image = Image.open(io.BytesIO(file.read()))
        if image.mode != "RGB":  # converting what is RGB already would copy it
            image = image.convert("RGB")
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.NEAREST)
        np.asarray(image)


def tutorial(dataset: str, size: str) -> None:
    """Append every batch of a Keras generator to an array, as tutorials teach."""
    import numpy as np
    from keras_preprocessing.image import ImageDataGenerator, affine_transformations
    from tqdm import tqdm

    # It wants SciPy for rotations and shears alone.
    affine_transformations.scipy = affine_transformations.scipy or affine_transformations
    images = ImageDataGenerator(rescale=1 / 255, validation_split=0.2)
    for subset in ("training", "validation"):
        flow = images.flow_from_directory(
            dataset, target_size=(int(size), int(size)), batch_size=33, class_mode="sparse",
            shuffle=True, subset=subset,
        )  # fmt: skip
        x, y = next(flow)
        for _ in tqdm(range(len(flow) - 1)):
            batch_x, batch_y = next(flow)
            x = np.append(x, batch_x, axis=0)
            y = np.append(y, batch_y, axis=0)
        print(x.shape, y.shape)


def usual_script(dataset: str, size: str, out: str) -> None:
    """Grow an HDF5 dataset by every batch, in one process: the script that people write next."""
    from pathlib import Path

    import h5py
    import numpy as np
    from PIL import Image

    paths = sorted(map(str, Path(dataset).glob("*/*.jpg")))
    side = int(size)
    with h5py.File(out, "w") as file:
        x = file.create_dataset(
            "X_train", (0, side, side, 3), "u1", maxshape=(None, side, side, 3),
            chunks=(1 if side > 100 else 33, side, side, 3),
        )  # fmt: skip
        for first in range(0, len(paths), 33):
            batch = []
            for path in paths[first : first + 33]:
                with Image.open(path) as image:
                    batch.append(np.asarray(image.convert("RGB").resize((side, side))))
            x.resize(len(x) + len(batch), axis=0)
            x[-len(batch) :] = batch
            file.flush()


def build(dataset: str, out: str, *options: str) -> None:
    """Run the command."""
    from batchify.cli import main

    with contextlib.suppress(FileNotFoundError):
        os.unlink(out)  # or it would be up to date
    main(["build", dataset, out, "--quiet", *options])


def build_shards(dataset: str, out: str, shards: str, *options: str) -> None:
    """Run the command for a folder of shards."""
    import shutil

    from batchify.cli import main

    shutil.rmtree(out, ignore_errors=True)
    main(["build", dataset, out, "--shards", shards, "--quiet", *options])


def merge(shards: str, out: str) -> None:
    """Run the command that makes one file of shards."""
    from batchify.cli import main

    with contextlib.suppress(FileNotFoundError):
        os.unlink(out)
    main(["merge", shards, out, "--quiet"])


def copy_file(path: str, out: str) -> None:
    """Copy a file to a new one, and wait for the disk, as a build and a merge do."""
    import shutil

    with contextlib.suppress(FileNotFoundError):
        os.unlink(out)
    shutil.copyfile(path, out)
    fd = os.open(out, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def build_bare(dataset: str, out: str, *options: str) -> None:
    """Run the command without reservations, and with one commit at the end."""
    from batchify.building import workfile
    from batchify.common import durable

    durable.reserve = lambda *_: None
    workfile.COMMIT_NBYTES = 1 << 62
    build(dataset, out, *options)


def build_share(dataset: str, out: str, share: str) -> None:
    """Build until a share of the images is done, and leave the rest."""
    import batchify

    def step(progress: batchify.Progress) -> None:
        if progress.stage == "fill" and progress.done >= float(share) * progress.total:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        batchify.build(dataset, out, progress=step)


def run(*arguments: str) -> None:
    """Run a command on what is there."""
    from batchify.cli import main

    main([*arguments, "--quiet"])


def hash_sources(dataset: str, workers: str) -> None:
    """Read and hash every image in worker processes."""
    import multiprocessing
    from pathlib import Path

    paths = sorted(map(str, Path(dataset).glob("*/*.jpg")))
    with multiprocessing.get_context("spawn").Pool(int(workers)) as pool:
        for _ in pool.imap_unordered(_hash, paths, chunksize=max(1, min(256, len(paths) // 64))):
            pass


def _hash(path: str) -> bytes:
    import hashlib

    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).digest()


def read_file(path: str) -> None:
    """Read a file from its beginning to its end."""
    with open(path, "rb", buffering=0) as file:
        while file.read(4 << 20):
            pass


def look(path: str, sheet: str, page: str) -> None:
    """Draw a contact sheet of a file, and write a page about it."""
    import batchify

    batchify.write_sheet(path, sheet)
    batchify.write_report(path, page)


def help_text() -> None:
    """Print the help of the command."""
    from batchify.cli import main

    main(["--help"])


def import_click() -> None:
    """Do what any click program does first."""
    import click

    print(click.__name__)


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    {
        "decode_only": decode_only,
        "tutorial": tutorial,
        "usual_script": usual_script,
        "build": build,
        "build_shards": build_shards,
        "merge": merge,
        "copy_file": copy_file,
        "build_bare": build_bare,
        "build_share": build_share,
        "run": run,
        "hash_sources": hash_sources,
        "read_file": read_file,
        "look": look,
        "help_text": help_text,
        "import_click": import_click,
    }[name](*arguments)
