"""Recognize the folders and files that are named after a split."""

from __future__ import annotations

import re

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
"""Folder name in lower case -> split."""

_SPLIT_WORDS = {
    **SPLIT_FOLDERS,
    "trn": "train",
    "validate": "validation",
    "tst": "test",
    "evaluation": "test",
    "holdout": "test",
}
_PLAIN_WORDS = frozenset((
    "data", "dataset", "dir", "examples", "file", "files", "folder", "image", "images", "img",
    "imgs", "part", "photo", "photos", "pics", "picture", "pictures", "sample", "samples",
    "set", "sets", "split", "subset",
))  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")
_GLUED = re.compile(
    f"({'|'.join(sorted(_SPLIT_WORDS, key=len, reverse=True))})({'|'.join(sorted(_PLAIN_WORDS))})"
)


def split_of_name(name: str) -> tuple[str | None, str]:
    """Return the split that a folder is named after, and what else its name says.

    ``train_set``, ``Train Data`` and ``trainingImages2017`` say only ``train``; of ``seg_train``,
    ``seg`` is left. A name with the words of several splits is that of none.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    glued = [match[1] if (match := _GLUED.fullmatch(word)) else word for word in words]
    splits = {_SPLIT_WORDS[word] for word in glued if word in _SPLIT_WORDS}
    others = [word for word in glued if word not in _SPLIT_WORDS and word not in _PLAIN_WORDS]
    return (splits.pop() if len(splits) == 1 else None), " ".join(others)


def named_split(name: str) -> str | None:
    """Return the split that a folder is named after, if its name says nothing else."""
    split, others = split_of_name(name)
    return None if others else split
