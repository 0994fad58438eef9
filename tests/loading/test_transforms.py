"""The transforms of other libraries, on the PIL images that they expect, as from ImageFolder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import encoded, photo, save
from helpers.frameworks import framework
from numpy.typing import NDArray
from PIL import Image

import batchify
from batchify import choices
from batchify.building.build import build
from batchify.dataset_options import SplitOptions
from batchify.errors import OptionError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.loading.split import Split
from batchify.options import BuildOptions

torch = framework("torch")
from torch.utils.data import DataLoader, Subset  # noqa: E402

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # a fork with threads, in 3.12
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # one CPU
]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """Build photos of many sizes: their files, and pixels of 20 x 16."""
    root = tmp_path_factory.mktemp("transforms")
    for i in range(24):
        drawn = photo(30 + 5 * (i % 7), 25 + 9 * (i % 5), seed=i, mode="L" if i == 5 else "RGB")
        name = f"{'ab'[i % 3 == 0]}/{i:02}"
        save(root / "data" / f"{name}.jpg", encoded(drawn, "JPEG"))
    found: dict[str, Split] = {}
    stores: tuple[choices.Store, ...] = ("encoded", "decoded")
    for store in stores:
        options = BuildOptions(
            split=SplitOptions(validation=0),
            decode=DecodeOptions((20, 16)),
            store=StoreOptions(store=store),
        )
        build(root / "data", root / f"{store}.h5", options)
        found[store] = batchify.open(root / f"{store}.h5")["train"]
    return found


def folder_of(split: Split) -> Path:
    """Return the folder of the images."""
    return Path(os.fsdecode(split.origin.files[0])).parent / "data"


class TrainingTransforms:
    """What torchvision's references train with; made again, not pickled, for a spawned worker."""

    def __init__(self) -> None:
        v2 = framework("torchvision.transforms.v2")
        self.compose = v2.Compose(
            [
                v2.RandomResizedCrop(24),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]),
            ]
        )

    def __call__(self, image: Any) -> Any:
        """Return a tensor (3, 24, 24)."""
        return self.compose(image)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainingTransforms, ()


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (1, "spawn")])
def test_training_is_that_of_an_image_folder(
    splits: dict[str, Split], workers: int, method: str | None
) -> None:
    """The same batches, bit for bit, from the same seed, whoever decodes them."""
    datasets = framework("torchvision.datasets")
    split, transform = splits["encoded"], TrainingTransforms()
    folder = datasets.ImageFolder(folder_of(split), transform)
    names = [os.path.relpath(path, folder_of(split)) for path, _ in folder.samples]
    in_order = Subset(folder, [names.index(path) for path in split.paths])
    rows = split.to_torch(transform, original=True, with_rows=True)
    epochs = []
    given: Any = {"shuffle": True, "num_workers": workers}
    for dataset, how in ((in_order, method and "fork"), (rows, method)):
        torch.manual_seed(3)
        epochs.append(list(DataLoader(dataset, 5, multiprocessing_context=how, **given)))
    assert len(epochs[0]) == len(epochs[1]) == 5
    seen: list[int] = []
    for (x, y), (mine, labels, numbers) in zip(*epochs, strict=True):
        assert mine.shape[1:] == (3, 24, 24)
        assert torch.equal(mine, x)
        assert torch.equal(labels, y)
        np.testing.assert_array_equal(split.labels[numbers], y)  # type: ignore[index]
        seen += numbers.tolist()
    assert sorted(seen) == list(range(24))


def test_transforms_of_stored_pixels(splits: dict[str, Split]) -> None:
    """Get the PIL image of a row, alone or with others."""
    split, transform = splits["decoded"], TrainingTransforms()
    rows = split.to_torch(transform, original=True)
    torch.manual_seed(8)
    wanted = [transform(Image.fromarray(split.images[row])) for row in (3, 9)]
    torch.manual_seed(8)
    assert torch.equal(rows[[3, 9]][0], torch.stack(wanted))
    torch.manual_seed(8)
    assert torch.equal(rows[3][0], wanted[0])


def test_pil_images_without_a_transform(splits: dict[str, Split]) -> None:
    """Are the items, for a collate function that takes images of any size."""
    split = splits["encoded"]

    def collate(items: Any) -> Any:
        return [image.size for image, _ in items]

    loader = DataLoader(split.to_torch(original=True), 24, collate_fn=collate, num_workers=1)
    (sizes,) = loader
    wanted = []
    for path in split.paths:
        with Image.open(folder_of(split) / path) as image:
            wanted.append(image.size)
    assert sizes == wanted
    assert len(set(sizes)) > 10


def test_original_is_for_rows_of_bytes(splits: dict[str, Split], tmp_path: Path) -> None:
    """Said before anything is decoded."""
    with pytest.raises(OptionError, match="original is for rows: images of different sizes"):
        splits["encoded"].to_torch(original=True, batch_size=4)
    with pytest.raises(OptionError, match="original must be True or False"):
        splits["encoded"].to_torch(original=1)  # type: ignore[arg-type]
    options = BuildOptions(store=StoreOptions(dtype="float32"))
    build(folder_of(splits["encoded"]), tmp_path / "floats.h5", options)
    with pytest.raises(OptionError, match="has float32 images, and PIL images have 8 bits"):
        batchify.open(tmp_path / "floats.h5")["train"].to_torch(original=True)


class Augment:
    """Albumentations' augmentation, as a transform."""

    def __init__(self) -> None:
        library = framework("albumentations")
        self.compose = library.Compose(
            [library.RandomResizedCrop((24, 24)), library.HorizontalFlip(), library.Normalize()]
        )

    def __call__(self, image: Any) -> NDArray[np.float32]:
        """Return an augmented array (24, 24, 3)."""
        found: NDArray[np.float32] = self.compose(image=np.asarray(image))["image"]
        return found

    def seed(self, _worker: int = 0) -> None:
        """Seed the library's own random state, which workers would otherwise share."""
        self.compose.set_random_seed(torch.initial_seed() % 2**32)


def test_albumentations(splits: dict[str, Split]) -> None:
    """Augments the image files, or stored pixels, as it does without batchify."""
    augment = Augment()
    for kind, original in (("encoded", True), ("decoded", True), ("decoded", False)):
        split = splits[kind]
        torch.manual_seed(4)
        augment.seed()
        batches = list(DataLoader(split.to_torch(augment, original=original), 7))
        augment.seed()
        for row, image in enumerate(torch.cat([x for x, _ in batches])):
            source = split.images[row]
            if kind == "encoded":
                source = np.asarray(Image.open(folder_of(split) / split.paths[row]).convert("RGB"))
            np.testing.assert_array_equal(image, augment(source))


def test_albumentations_in_workers(splits: dict[str, Split]) -> None:
    """Each worker draws for itself once it is seeded; else all draw the same, epoch after epoch."""
    augment = Augment()
    rows = splits["encoded"].to_torch(augment, original=True)
    torch.manual_seed(5)
    for seed, different in ((augment.seed, 12), (None, 3)):
        given: Any = {"multiprocessing_context": "fork", "worker_init_fn": seed}
        loader = DataLoader(rows, sampler=[0] * 6, num_workers=2, **given)
        found = [image.numpy().tobytes() for _ in range(2) for image, _ in loader]
        assert len(set(found)) == different
