"""Splits in PyTorch: every row once an epoch, as it is stored, whoever reads it."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.frameworks import ROWS, SHAPE, framework, make_splits
from numpy.typing import NDArray

from batchify.errors import OptionError
from batchify.loading.split import Split

torch = framework("torch")
from torch.utils.data import (  # noqa: E402
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
)

from batchify.loading.frameworks import shared_memory  # noqa: E402
from batchify.loading.frameworks.torch_batches import TorchBatches  # noqa: E402

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # a fork with threads, in 3.12
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # one CPU
    pytest.mark.filterwarnings("ignore:.set_vital. is deprecated:UserWarning"),  # by torchdata
]
SCALE = np.float32(1 / 255)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """Build a mapped and a compressed split."""
    return make_splits(tmp_path_factory.mktemp("torch"))


def rows_of(split: Split, images: Any) -> list[int]:
    """Return which rows these (n, C, H, W) images are; all are different."""
    numbers = {split.images[row].tobytes(): row for row in range(len(split))}
    found = images.permute(0, 2, 3, 1).numpy()
    if found.dtype == np.float32:
        found = np.rint(found * 255).astype(np.uint8)
    return [numbers[np.ascontiguousarray(image).tobytes()] for image in found]


def stored(split: Split, rows: list[int]) -> NDArray[np.float32]:
    """Return images as floats (n, C, H, W)."""
    images: NDArray[np.float32] = split.images[rows].astype(np.float32) * SCALE
    return images.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("kind", ["none", "gzip", "encoded"])
def test_rows_are_tensors_and_labels(splits: dict[str, Split], kind: str) -> None:
    """By number, several together, scaled or not, or what the transform makes of the image."""
    split = splits[kind]
    rows = split.to_torch()
    assert len(rows) == ROWS
    assert isinstance(rows, torch.utils.data.Dataset)
    assert repr(rows) == f"<PyTorch rows of {split!r}>"
    image, label = rows[7]
    assert (image.dtype, image.shape) == (torch.float32, (3, 20, 16))
    np.testing.assert_array_equal(image, stored(split, [7])[0])
    assert label == split.labels[7]  # type: ignore[index]
    for one, (image, label) in zip([7, -1, 7], rows.__getitems__([7, -1, 7]), strict=True):
        np.testing.assert_array_equal(image, stored(split, [one])[0])
        assert label == split.labels[one]  # type: ignore[index]
    as_stored = split.to_torch(scaled=False)[3][0]
    np.testing.assert_array_equal(as_stored.permute(1, 2, 0), split.images[3])
    seen = split.to_torch(transform=lambda array: (array.shape, array.dtype, array.sum()))[3][0]
    assert seen == (SHAPE, np.uint8, split.images[3].sum())
    shapes = split.to_torch(transform=lambda array: np.array(array.shape))[[3, 1]][0]
    assert shapes.tolist() == [[20, 16, 3]] * 2
    assert rows.targets is split.labels
    assert (rows.classes, rows.class_to_idx) == (("bright", "dark"), {"bright": 0, "dark": 1})
    assert rows[2:5][0].shape == rows[range(3)][0].shape == (3, 3, 20, 16)
    images, labels = rows[torch.tensor([5, 2])]
    np.testing.assert_array_equal(images, stored(split, [5, 2]))
    assert labels.tolist() == split.labels[[5, 2]].tolist()
    with pytest.raises(IndexError, match="row 150 is out of range: there are 150"):
        rows[150]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_split_itself_is_loaded(splits: dict[str, Split], workers: int) -> None:
    """As a map-style dataset, and as rows of tensors, shuffled by the loader."""
    split = splits["none"]
    for dataset, shape in ((split, (32, *SHAPE)), (split.to_torch(), (32, 3, 20, 16))):
        loader = DataLoader(dataset, 32, shuffle=True, num_workers=workers)
        found = list(loader)
        assert found[0][0].shape == shape
        labels = np.concatenate([y for _, y in found])
        assert sorted(labels.tolist()) == sorted(split.labels.tolist())  # type: ignore[union-attr]
    rows = [row for x, _ in found for row in rows_of(split, x)]
    assert sorted(rows) == list(range(ROWS))
    np.testing.assert_array_equal(labels, split.labels[rows])  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "workers", "method"),
    [
        ("none", 0, None), ("none", 1, "fork"), ("none", 3, "fork"), ("none", 2, "spawn"),
        ("gzip", 0, None), ("gzip", 2, "fork"), ("encoded", 0, None), ("encoded", 2, "fork"),
    ],
)  # fmt: skip
def test_whole_batches_serve_each_row_once(
    splits: dict[str, Split], kind: str, workers: int, method: str | None
) -> None:
    """In another order each epoch, for any number of workers, however they are started."""
    split = splits[kind]
    batches = split.to_torch(batch_size=8, shuffle=True)
    loader = DataLoader(
        batches, batch_size=None, num_workers=workers, multiprocessing_context=method
    )
    assert len(loader) == len(batches) == 19
    orders = []
    for _ in range(1 if method == "spawn" else 3):
        rows = []
        for x, y in loader:
            assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
            some = rows_of(split, x)
            np.testing.assert_array_equal(x, stored(split, some))
            np.testing.assert_array_equal(y, split.labels[some])  # type: ignore[index]
            rows += some
        assert sorted(rows) == list(range(ROWS))
        orders.append(tuple(rows))
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize(
    ("kind", "workers", "method"),
    [("none", 0, None), ("gzip", 2, "fork"), ("encoded", 2, "fork"), ("none", 2, "spawn")],
)
def test_rows_come_with_their_images(
    splits: dict[str, Split], kind: str, workers: int, method: str | None
) -> None:
    """Of whole batches, and of rows that the loader shuffles, gathers or transforms."""
    split = splits[kind]
    given: Any = {"num_workers": workers, "multiprocessing_context": method}
    whole = split.to_torch(batch_size=8, shuffle=True, with_rows=True)
    single = split.to_torch(with_rows=True)
    cut = BatchSampler(RandomSampler(range(ROWS)), 8, False)
    loaders = [
        DataLoader(whole, batch_size=None, **given),
        DataLoader(single, 8, shuffle=True, **given),
        DataLoader(single, batch_size=None, sampler=cut, **given),
    ]
    for loader in loaders[: 1 if method == "spawn" else 3]:
        served: list[int] = []
        for x, y, rows in loader:
            assert rows.dtype == torch.int64
            assert rows.tolist() == rows_of(split, x)
            np.testing.assert_array_equal(y, split.labels[rows])  # type: ignore[index]
            assert split.paths[rows] == [split.paths[row] for row in rows.tolist()]
            served += rows.tolist()
        assert sorted(served) == list(range(ROWS))
    seen = split.to_torch(lambda image: int(image.sum()), with_rows=True)[[7, -1]]
    sums = split.images[[7, -1]].sum((1, 2, 3))
    assert [each.tolist() for each in seen] == [
        sums.tolist(),
        split.labels[[7, -1]].tolist(),  # type: ignore[index]
        [7, 149],
    ]


@pytest.mark.parametrize("kind", ["none", "gzip"])
@pytest.mark.parametrize(
    ("workers", "persistent"), [(0, False), (1, False), (2, False), (2, True), (3, True)]
)
def test_orders_follow_the_seed(
    splits: dict[str, Split], kind: str, workers: int, persistent: bool
) -> None:
    """And the epoch, not workers or torch's generator, also after an epoch that was given up."""
    options: dict[str, Any] = {"shuffle": True, "seed": 9, "drop_last": True, "with_rows": True}
    wanted = split_rows(splits[kind].batches(8, **options), 4)
    batches = splits[kind].to_torch(batch_size=8, **options)
    assert len(batches) == 18
    loader = DataLoader(
        batches, None, num_workers=workers, persistent_workers=persistent and workers > 0
    )
    found: list[list[list[int]]] = []
    for epoch in range(4):
        assert batches.epoch == epoch
        torch.manual_seed(epoch % 2)
        found.append([])
        for *_, rows in loader:
            found[-1].append(rows.tolist())
            if epoch == 1 and len(found[-1]) == 2:
                break
    assert found == [wanted[0], wanted[1][:2], *wanted[2:]]
    batches.set_epoch(2)
    assert [rows.tolist() for *_, rows in loader] == wanted[2]


def split_rows(batches: Any, epochs: int) -> list[list[list[int]]]:
    """Return the rows of each batch of each epoch."""
    return [[batch[-1].tolist() for batch in batches] for _ in range(epochs)]


def test_unshuffled_batches_are_in_the_order_of_the_file(splits: dict[str, Split]) -> None:
    """Whatever the number of workers."""
    batches = splits["none"].to_torch(batch_size=7)
    for workers in (0, 2):
        found = torch.cat([x for x, _ in DataLoader(batches, None, num_workers=workers)])
        np.testing.assert_array_equal(found, stored(splits["none"], list(range(ROWS))))


def test_batches_that_are_kept_stay_as_they_are(splits: dict[str, Split]) -> None:
    """Memory is lent again only when nothing refers to a batch: all kept, none, or slices."""
    split = splits["none"]
    rows = split.to_torch(scaled=False)
    sampler = BatchSampler(RandomSampler(range(ROWS)), 3, False)
    loader = DataLoader(
        rows, batch_size=None, sampler=sampler, num_workers=2, persistent_workers=True
    )
    for kept_of in (1, 3):
        kept = []
        for number, (x, _) in enumerate(loader):
            if number % kept_of == 0:
                wanted = x.clone()
                kept.append((x[1:, :, 3:5] if number % 2 else x.numpy()[1:, :, 3:5], wanted))
        assert len(kept) == -(-50 // kept_of)
        for part, wanted in kept:
            np.testing.assert_array_equal(part, wanted[1:, :, 3:5])
        del kept, part, wanted, x
    gc.collect()
    assert 2 <= len(shared_memory._memories) <= 2 * shared_memory._MOST
    assert not any(
        shared_memory._flags(memory).any() for memory in shared_memory._memories.values()
    )


class Workshop:
    """Hands tensors over as a worker does, but within this process."""

    def __init__(self) -> None:
        self.lender = shared_memory.Lender()
        self.count = 0

    def make(self) -> Any:
        """Return a tensor of four images, all pixels of which are the next number."""
        images, piece = self.lender.array((4, *SHAPE), np.dtype(np.uint8))
        self.count += 1
        images[:] = self.count
        return shared_memory.lent(images, piece)

    def pieces(self) -> int:
        """Return how many pieces there are."""
        return len(self.lender._pieces)


def handed_over(tensor: Any) -> Any:
    """Send a tensor, and receive it."""
    return pickle.loads(bytes(ForkingPickler.dumps(tensor)))


def test_memory_is_lent_again() -> None:
    """Batch after batch, sent or dropped; beyond the most pieces it is one's own."""
    shop = Workshop()
    for number in range(1, 9):
        if number % 3:
            found = handed_over(shop.make())
            assert type(found) is torch.Tensor
            assert found.shape == (4, 3, 20, 16)
            assert set(found.unique().tolist()) == {number}
            del found
        else:
            shop.make()
    assert shop.pieces() == 1
    tensors = [shop.make() for _ in range(shared_memory._MOST + 3)]
    assert shop.pieces() == shared_memory._MOST
    kinds = [type(tensor) is torch.Tensor for tensor in tensors]
    assert kinds == [False] * 16 + [True] * 3
    _, piece = shop.lender.array((5, *SHAPE), np.dtype(np.uint8))
    assert piece is None
    del tensors
    _, piece = shop.lender.array((5, *SHAPE), np.dtype(np.uint8))
    assert piece is not None
    assert shop.pieces() == shared_memory._MOST  # one that was too small is gone


def test_what_is_used_anywhere_is_not_lent() -> None:
    """Kept by the worker, sent twice, kept as a part or as an array by the receiver."""
    shop = Workshop()
    kept = shop.make()
    first, second = handed_over(kept), handed_over(kept)
    assert (shop.make() == 2).all()
    del kept, first
    assert (shop.make() == 3).all()
    part, array = second[1:, :, 3], second.numpy()
    del second
    for _ in range(5):
        handed_over(shop.make())
    assert (part == 1).all()
    assert (array == 1).all()
    assert shop.pieces() == 2
    del part, array
    found = [handed_over(shop.make()) for _ in range(2)]
    assert shop.pieces() == 2
    assert [int(each[0, 0, 0, 0]) for each in found] == [9, 10]


def test_a_tensor_sent_too_often_is_copied() -> None:
    """To as many receivers as one likes."""
    shop = Workshop()
    tensor = shop.make()
    found = [handed_over(tensor) for _ in range(2 * shared_memory._FLAGS)]
    del tensor
    handed_over(shop.make())
    assert all((each == 1).all() for each in found)


def test_a_tensor_that_was_changed_arrives_as_it_is() -> None:
    """In place, in shape or in values; copies are plain tensors; labels alike."""
    shop = Workshop()
    tensor = shop.make()
    tensor.mul_(3)
    assert (handed_over(tensor) == 3).all()
    tensor.unsqueeze_(0)
    assert handed_over(tensor).shape == (1, 4, 3, 20, 16)
    assert type(copy.deepcopy(tensor)) is torch.Tensor
    assert (pickle.loads(pickle.dumps(tensor)) == 3).all()
    assert type(tensor + 1) is type(tensor[0]) is torch.Tensor
    assert (handed_over(tensor[0, 1:3]) == 3).all()
    labels = shared_memory.label_tensor(np.arange(3))
    labels.unsqueeze_(1).add_(2)
    assert handed_over(labels).tolist() == [[2], [3], [4]]
    floats = shared_memory.label_tensor(np.ones(2, np.float32)).requires_grad_()
    assert handed_over(floats).requires_grad
    images, piece = shop.lender.array((1, 20, 16, 1), np.dtype(np.uint8))
    images[:] = 7
    for change in (torch.Tensor.squeeze_, lambda tensor: tensor.as_strided_((5,), (2,))):
        grey = shared_memory.lent(images, piece)
        change(grey)
        assert handed_over(grey).shape == grey.shape
        assert (handed_over(grey) == 7).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_of_the_receiver_lets_nothing_go() -> None:
    """What it drops is still used by its parent."""
    shop = Workshop()
    found = handed_over(shop.make())
    pid = os.fork()
    if not pid:
        del found
        os._exit(0)
    os.waitpid(pid, 0)
    handed_over(shop.make())
    assert (found == 1).all()
    del found  # another fork may hold it still
    gc.collect()
    handed_over(shop.make())
    assert shop.lender._pieces[-1].memory[0] == 3
    assert shop.pieces() == 1


def test_memory_does_not_grow_with_the_sizes_of_batches(splits: dict[str, Split]) -> None:
    """A piece that is too small is replaced, in the loader's process, too."""
    sampler = [list(range(count)) for count in range(1, 60)]
    loader = DataLoader(splits["none"].to_torch(), batch_size=None, sampler=sampler, num_workers=1)
    shared_memory._memories.clear()
    for count, (x, _) in enumerate(loader, 1):
        assert len(x) == count
    assert len(shared_memory._memories) <= 6


def test_pieces_of_dead_workers_are_forgotten(splits: dict[str, Split]) -> None:
    """Epoch after epoch with new workers: what is known of them does not grow."""
    batches = splits["none"].to_torch(batch_size=8)
    for _ in range(3):
        for _ in DataLoader(batches, None, num_workers=1):
            pass
    assert len({pid for pid, _ in shared_memory._memories}) <= 2


def test_a_collate_function_gets_the_batch(splits: dict[str, Split]) -> None:
    """In the worker, as a pair of tensors; what it computes arrives."""

    def collate(batch: Any) -> Any:
        x, y = batch
        return x.float().mean(dim=(1, 2, 3)), x[:2], y + 1

    batches = splits["none"].to_torch(batch_size=10, scaled=False)
    for start, found in enumerate(DataLoader(batches, None, num_workers=1, collate_fn=collate)):
        images, labels = splits["none"][10 * start : 10 * start + 10]
        np.testing.assert_allclose(found[0], images.mean(axis=(1, 2, 3)), rtol=1e-5)
        np.testing.assert_array_equal(found[1].permute(0, 2, 3, 1), images[:2])
        np.testing.assert_array_equal(found[2], labels + 1)


def test_a_transform_of_batches(splits: dict[str, Split]) -> None:
    """It is given the stored images of a batch."""
    batches = splits["gzip"].to_torch(lambda images: images.mean(axis=(1, 2)), batch_size=50)
    for workers in (0, 1):
        found = torch.cat([x for x, _ in DataLoader(batches, None, num_workers=workers)])
        np.testing.assert_allclose(found, splits["gzip"].images[:].mean(axis=(1, 2)))


def test_loaders_that_begin_together_read_whole_epochs(splits: dict[str, Split]) -> None:
    """Of one dataset: the workers of each agree, whichever starts first."""
    batches = splits["none"].to_torch(batch_size=40, shuffle=True, with_rows=True)
    loader = DataLoader(batches, None, num_workers=3)
    wanted = split_rows(splits["none"].batches(40, shuffle=True, with_rows=True), 2)
    pairs = list(zip(loader, loader, strict=True))
    found = [[batch[-1].tolist() for batch in epoch] for epoch in zip(*pairs, strict=True)]
    assert sorted(found) == sorted(wanted)
    assert batches.epoch == 2


def test_ranks_are_those_of_torch_distributed(
    splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is initialized, unless they are given; not of rows, which are sampled."""
    split, found = splits["none"], []
    options: dict[str, Any] = {"batch_size": 8, "shuffle": True, "with_rows": True}
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        batches = split.to_torch(**options)
        found.append(split_rows(batches, 1)[0])
        (given,) = split_rows(split.to_torch(**options, rank=rank, world_size=3), 1)
        assert found[-1] == given
    assert {len(batches) for batches in found} == {7}
    together = [row for batches in found for batch in batches for row in batch]
    assert sorted(together) == list(range(ROWS))
    every = split.to_torch(**options, rank=0, world_size=1)
    assert sorted(row for batch in split_rows(every, 1)[0] for row in batch) == list(range(ROWS))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    with pytest.raises(OptionError, match=r"made for rank 2 of 3, but .* says rank 1 of 3"):
        iter(batches)
    with pytest.raises(OptionError, match="rank and world_size go together"):
        split.to_torch(batch_size=8, rank=1)
    rows = split.to_torch()
    sampler = DistributedSampler(rows, num_replicas=2, rank=1)
    assert len(list(DataLoader(rows, None, sampler=BatchSampler(sampler, 8, False)))) == 10


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 3)])
def test_a_plain_loader_resumes(splits: dict[str, Split], before: int, after: int) -> None:
    """With any number of workers: if they read, the caller says how many batches it used."""
    options: dict[str, Any] = {"shuffle": True, "seed": 1, "with_rows": True}
    wanted = split_rows(splits["gzip"].batches(8, **options), 3)
    batches = splits["gzip"].to_torch(batch_size=8, **options)
    loader = DataLoader(batches, None, num_workers=before)
    assert batches.state_dict()["epoch"] == 0
    assert len(list(loader)) == 19
    for number, (*_, rows) in enumerate(loader, 1):
        assert rows.tolist() == wanted[1][number - 1]
        if number == 5:
            break
    if before:
        with pytest.raises(OptionError, match=r"pass state_dict\(batches=N\)"):
            batches.state_dict()
    state = json.loads(json.dumps(batches.state_dict(batches=5)))
    assert (state["epoch"], state["row"]) == (1, 40)
    if not before:
        assert state == batches.state_dict()
    with pytest.raises(OptionError, match="20 batches cannot have been used: there are 19"):
        batches.state_dict(batches=20)
    half = splits["gzip"].to_torch(batch_size=4, **options, rank=1, world_size=2)
    half.load_state_dict(state)
    batches = splits["gzip"].to_torch(batch_size=8, **options)
    batches.load_state_dict(state)
    assert batches.state_dict() == state
    loader = DataLoader(batches, None, num_workers=after)
    assert split_rows(loader, 2) == [wanted[1][5:], wanted[2]]
    seconds = [batch[4:] for batch in wanted[1][5:-1]] + [wanted[1][-1][3:]]
    assert split_rows(DataLoader(half, None, num_workers=after), 1) == [seconds]


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (1, False), (2, False), (2, True)])
def test_a_stateful_loader_resumes(
    splits: dict[str, Split], workers: int, persistent: bool
) -> None:
    """In the middle, at the last batch and after an epoch; batches read ahead do not count."""
    stateful = framework("torchdata.stateful_dataloader")
    options: dict[str, Any] = {"shuffle": True, "seed": 1, "with_rows": True}
    wanted = split_rows(splits["none"].batches(15, **options), 3)

    def make(**ranks: Any) -> Any:
        batches = splits["none"].to_torch(batch_size=15 // ranks.get("world_size", 1), **options,
                                          **ranks, prefetch=2)  # fmt: skip
        return stateful.StatefulDataLoader(
            batches, None, num_workers=workers, persistent_workers=persistent
        )

    loader = make()
    assert split_rows(loader, 1) == wanted[:1]
    states = [loader.state_dict()]
    for *_, _rows in loader:
        states.append(loader.state_dict())
    states = json.loads(json.dumps(states))
    for used in (0, 3, 10):
        other = make()
        other.load_state_dict(states[used])
        rest = [wanted[1][used:]] if used else wanted[1:2]
        assert split_rows(other, 2) == [*rest, wanted[2]]
    thirds = []
    for rank in range(3):
        other = make(rank=rank, world_size=3)
        other.load_state_dict(states[7])
        thirds.append(split_rows(other, 1)[0])
    steps = [[row for batch in step for row in batch] for step in zip(*thirds, strict=True)]
    assert steps == wanted[1][7:]
    if workers == 2:
        batches = splits["none"].to_torch(batch_size=15, **options)
        other = stateful.StatefulDataLoader(batches, None, num_workers=1)
        other.load_state_dict(states[7])
        with pytest.raises(OptionError, match="saved with workers=2, not 1: StatefulDataLoader"):
            next(iter(other))


def test_page_locked_memory_needs_a_gpu(
    splits: dict[str, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for where there is one; the batches are the same."""
    wanted = stored(splits["none"], list(range(ROWS)))
    batches = splits["none"].to_torch(batch_size=20, pin_memory=True)
    np.testing.assert_array_equal(torch.cat([x for x, _ in batches]), wanted)
    asked = []
    real = torch.empty

    def empty(*arguments: Any, pin_memory: bool = False, **options: Any) -> Any:
        asked.append(pin_memory)
        return real(*arguments, **options)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", empty)
    batches = splits["none"].to_torch(batch_size=20, pin_memory=True)
    np.testing.assert_array_equal(torch.cat([x for x, _ in batches]), wanted)
    assert asked.count(True) == 8


@pytest.mark.parametrize("store", [{"class_mode": "categorical"}, {"class_mode": "none"}])
def test_other_labels(tmp_path: Path, store: dict[str, Any]) -> None:
    """One-hot floats, or images alone."""
    split = make_splits(tmp_path, **store)["none"]
    item = split.to_torch(with_rows=True)[-1]
    assert (len(item), item[-1]) == (2 if split.labels is None else 3, 149)
    for workers in (0, 1):
        found = list(DataLoader(split.to_torch(batch_size=100), None, num_workers=workers))
        rows = list(DataLoader(split.to_torch(), 100, num_workers=workers))
        for each in (found, rows):
            if store["class_mode"] == "none":
                np.testing.assert_array_equal(torch.cat(each), stored(split, list(range(ROWS))))
            else:
                labels = torch.cat([y for _, y in each])
                assert labels.dtype == torch.float32
                np.testing.assert_array_equal(labels, split.labels)


def test_datasets_are_copied_and_pickled(splits: dict[str, Split]) -> None:
    """As trainers do with them; a copy serves the same."""
    for dataset in (splits["none"].to_torch(), splits["none"].to_torch(batch_size=ROWS)):
        for other in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
            whole = isinstance(other, TorchBatches)
            x = next(iter(DataLoader(other, None if whole else ROWS)))[0]
            np.testing.assert_array_equal(x, stored(splits["none"], list(range(ROWS))))


def test_options_of_batches_are_not_for_rows(splits: dict[str, Split]) -> None:
    """They would do nothing there."""
    for options in (
        {"shuffle": True}, {"drop_last": True}, {"prefetch": 1}, {"pin_memory": True}, {"rank": 0},
    ):  # fmt: skip
        with pytest.raises(OptionError, match="are for whole batches; give batch_size, or"):
            splits["none"].to_torch(**options)


@pytest.mark.parametrize("kind", ["none", "gzip", "encoded"])
def test_a_model_learns(splits: dict[str, Split], kind: str) -> None:
    """Bright from dark, within a few epochs, with workers."""
    torch.manual_seed(1)
    batches = splits[kind].to_torch(batch_size=10, shuffle=True)
    loader = DataLoader(batches, batch_size=None, num_workers=2, persistent_workers=True)
    mean = torch.nn.AvgPool2d((20, 16))
    model = torch.nn.Sequential(mean, torch.nn.Flatten(), torch.nn.Linear(3, 2))
    optimizer = torch.optim.Adam(model.parameters(), 0.3)
    losses = []
    for _ in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.3 < np.mean(losses[:5])
