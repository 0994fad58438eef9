"""The rule for hidden files: which names are ignored without --hidden."""

_HIDDEN_NAMES = frozenset({b"__macosx", b"thumbs.db", b"desktop.ini", b"$recycle.bin"})


def is_hidden(name: bytes) -> bool:
    """Tell whether a name is that of a hidden file or folder, on any system."""
    return name.startswith(b".") or name.lower() in _HIDDEN_NAMES
