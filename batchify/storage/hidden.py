"""The rule for hidden files, and what systems leave behind: names ignored without --hidden."""

_ON_ANY_SYSTEM = frozenset(
    {
        # Windows
        b"$recycle.bin", b"system volume information", b"thumbs.db", b"ehthumbs.db",
        b"ehthumbs_vista.db", b"desktop.ini", b"found.000",
        # macOS
        b"__macosx", b"icon\r", b"network trash folder", b"temporary items",
    }
)  # fmt: skip
"""In lower case: these systems do not tell cases apart, and their disks are read elsewhere, too."""

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
"""Ends of names of what Windows and Synology keep about a file, in a file next to it."""


def is_hidden(name: bytes) -> bool:
    """Tell whether a name is that of a hidden file or folder, or of what a system left behind."""
    return (
        name.startswith(b".")
        or name in _EXACT
        or name.lower() in _ON_ANY_SYSTEM
        or name.endswith(_STREAMS)
    )
