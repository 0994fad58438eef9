"""Share batch memory between PyTorch's loader workers and the training process.

PyTorch makes new shared memory for each tensor that a worker sends, and most of the time goes into
its pages. Here a worker reads each batch into a piece of shared memory that it reuses: once nothing
refers to the batch, in the worker and in the loader's process, the piece is free again. If all
pieces are in use, batches are sent as PyTorch sends them. This takes a fifth of the CPU time
(``scripts/bench read --only ^lent``).
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import sys
import threading
import weakref
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.multiprocessing.reductions import reduce_tensor

_MOST = 16
"""The most pieces of memory of one worker."""

_FLAGS = 8
"""Bytes after the batch: each is the state of one message that carries the batch, 0 if free."""

_SENT, _FORKED = 1, 2
"""States: in use by its receiver; or by a fork of the receiver, so that it is never reused."""

_TAIL = _FLAGS + 8
"""The flags, and the process number of the loader, once it has mapped the memory."""

Key = tuple[int, int]
"""Process and number of a piece."""


class LentTensor(torch.Tensor):
    """A tensor in lent memory; results and copies of it are plain tensors."""

    piece: _Piece
    __torch_function__ = torch._C._disabled_torch_function_impl

    def plain(self) -> torch.Tensor:
        """Return a plain tensor in the same memory."""
        return self.as_subclass(torch.Tensor)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        return copy.deepcopy(self.plain(), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.plain().__reduce_ex__(protocol)


class LabelTensor(LentTensor):
    """A small tensor that is sent within the message, not in shared memory."""


class _Piece:
    """Shared memory for one batch at a time."""

    def __init__(self, number: int, nbytes: int) -> None:
        self.key = os.getpid(), number
        self.room = -(-nbytes // 8) * 8
        self.storage = torch.UntypedStorage._new_shared(self.room + _TAIL)
        self.memory = _memory(self.storage)
        self.memory[self.room :] = 0
        self.flags = _flags(self.memory)
        self.used_here = False

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return memory for a batch; it is in use until nothing refers to it."""
        self.used_here = True
        array: NDArray[Any] = self.memory[: _nbytes(shape, dtype)].view(dtype).reshape(shape)
        weakref.finalize(array, self._release).atexit = False
        return array

    def _release(self) -> None:
        self.used_here = False

    @property
    def is_free(self) -> bool:
        """Whether it is in use neither here nor where it was sent."""
        return not self.used_here and not self.flags.any()

    @property
    def is_mapped(self) -> bool:
        """Whether the loader's process, the parent of this one, has mapped the memory."""
        loader = multiprocessing.parent_process()
        return loader is not None and int(_loader(self.memory)[0]) == loader.pid


def _flags(memory: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return memory[-_TAIL:-8]


def _loader(memory: NDArray[np.uint8]) -> NDArray[np.int64]:
    return memory[-8:].view(np.int64)


def _nbytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _memory(storage: torch.UntypedStorage) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
    return array


class Lender:
    """The pieces of memory of this process; usable from several threads."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._count = 0
        self._lock = threading.Lock()

    def array(
        self, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[NDArray[Any], _Piece | None]:
        """Return memory for a batch and its piece, or None as its piece if none is free."""
        with self._lock:
            piece = self._find(_nbytes(shape, dtype))
            if piece is None:
                return np.empty(shape, dtype), None
            return piece.array(shape, dtype), piece

    def _find(self, nbytes: int) -> _Piece | None:
        if sys.platform == "win32":  # shared memory works in another way there
            return None
        self._pieces = [piece for piece in self._pieces if (piece.flags != _FORKED).all()]
        free = [piece for piece in self._pieces if piece.is_free]
        for piece in free:
            if piece.room >= nbytes:
                return piece
        number = self._count
        if free:  # too small: the new piece replaces it, also in the loader's process
            self._pieces.remove(free[0])
            number = free[0].key[1]
        elif len(self._pieces) == _MOST:
            return None
        else:
            self._count += 1
        try:
            self._pieces.append(_Piece(number, nbytes))
        except RuntimeError:  # the system has no more shared memory
            return None
        return self._pieces[-1]


def lent(images: NDArray[Any], piece: _Piece | None) -> torch.Tensor:
    """Return a batch as a tensor (n, C, H, W), which is sent without a copy if it has a piece."""
    tensor = channels_first(images)
    if piece is None:
        return tensor
    found: LentTensor = tensor.as_subclass(LentTensor)
    found.piece = piece
    return found


def label_tensor(labels: NDArray[Any]) -> torch.Tensor:
    """Return labels as a tensor that is sent within the message."""
    return torch.from_numpy(labels).as_subclass(LabelTensor)


def channels_first(images: NDArray[Any]) -> torch.Tensor:
    """Return images (n, H, W, C) as a tensor (n, C, H, W) in the same memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _send(tensor: LentTensor) -> tuple[Any, ...]:
    """Reduce a tensor to its piece for a message, or to a copy if it was changed or sliced."""
    plain, piece = tensor.plain(), tensor.piece
    flags = np.flatnonzero(piece.flags == 0)
    as_lent = (
        plain.ndim == 4
        and not plain.requires_grad
        and plain.permute(0, 2, 3, 1).is_contiguous()
        and plain.data_ptr() == piece.memory.ctypes.data
    )
    if not as_lent or not len(flags):
        return _send_copy(plain)
    images = plain.permute(0, 2, 3, 1).numpy()
    piece.flags[flags[0]] = _SENT
    storage = None if piece.is_mapped else piece.storage
    return _receive, (piece.key, storage, int(flags[0]), images.shape, images.dtype.str)


def _send_labels(tensor: LabelTensor) -> tuple[Any, ...]:
    plain = tensor.plain()
    try:
        return torch.from_numpy, (plain.numpy(),)
    except (RuntimeError, TypeError):  # with a gradient, or of a dtype that NumPy lacks
        return _send_copy(plain)


def _send_copy(tensor: torch.Tensor) -> tuple[Any, ...]:
    copied = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    return tuple(reduce_tensor(copied))


ForkingPickler.register(LentTensor, _send)
ForkingPickler.register(LabelTensor, _send_labels)


_lenders: dict[int, Lender] = {}


def lender() -> Lender:
    """Return the lender of this process, never that of its parent before a fork."""
    return _lenders.setdefault(os.getpid(), Lender())


_memories: dict[Key, NDArray[np.uint8]] = {}
"""The pieces of the workers of this process, which they may send again."""


def _receive(
    key: Key, storage: torch.UntypedStorage | None, flag: int, shape: tuple[int, ...], dtype: str
) -> torch.Tensor:
    """Return a batch in its worker's memory; the last reference releases it."""
    if storage is not None:
        for other in list(_memories):
            if not _is_alive(other[0]):
                _memories.pop(other, None)
        _memories[key] = _memory(storage)
        _loader(_memories[key])[0] = os.getpid()
    if key not in _memories:
        raise RuntimeError(
            "a batch was sent to a process that is not the loader's: send a copy, tensor.clone()"
        )
    memory = _memories[key]
    images = memory[: _nbytes(shape, np.dtype(dtype))].view(dtype).reshape(shape)
    state = _flags(memory)[flag : flag + 1]
    weakref.finalize(images, _release, state, os.getpid()).atexit = False
    return channels_first(images)


def _release(state: NDArray[np.uint8], pid: int) -> None:
    if os.getpid() == pid and state[0] == _SENT:  # not in a fork of the receiver
        state[0] = 0


def _before_fork() -> None:
    """Keep the memory that is in use here from being reused: the fork will use it, too."""
    for key, memory in list(_memories.items()):
        states = _flags(memory)
        if (states == _SENT).any():
            states[states == _SENT] = _FORKED
            _loader(memory)[0] = 0
            _memories.pop(key, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
