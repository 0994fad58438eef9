"""Recognize names that are ignored without --hidden: hidden files, and files of the system."""

_ON_ANY_SYSTEM = frozenset(
    {
        # Windows
        b"$recycle.bin", b"system volume information", b"thumbs.db", b"ehthumbs.db",
        b"ehthumbs_vista.db", b"desktop.ini", b"found.000",
        # macOS
        b"__macosx", b"icon\r", b"network trash folder", b"temporary items",
    }
)  # fmt: skip
"""In lower case: these systems ignore case, and their disks are read on other systems, too."""

_EXACT = frozenset(
    {
        # Linux
        b"lost+found", b"aquota.user", b"aquota.group",
        # Network storage: Synology, QNAP, NetApp
        b"@eaDir", b"#recycle", b"#snapshot", b"@tmp", b"@Recycle", b"@Recently-Snapshot",
        b"~snapshot",
        # Python; a notebook's checkpoints begin with a dot
        b"__pycache__",
    }
)  # fmt: skip


_STREAMS = (b":Zone.Identifier", b"@SynoEAStream", b"@SynoResource")
"""Endings of files in which Windows and Synology keep notes about the file next to them."""


def is_hidden(name: bytes) -> bool:
    """Return whether a file or folder with this name is hidden, or belongs to the system."""
    return (
        name.startswith(b".")
        or name in _EXACT
        or name.lower() in _ON_ANY_SYSTEM
        or name.endswith(_STREAMS)
    )
