"""Print the changelog's section of a version, for its release: release_notes.py TAG.

Fails if the tag is not ``v`` and the version of ``batchify/_version.py``, or if the changelog has
no text for it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


def notes(tag: str, version_module: str, changelog: str) -> str:
    """Return the changelog's section for a tag.

    Parameters
    ----------
    tag : str
        As ``v1.2.3``.
    version_module, changelog : str
        Content of ``_version.py`` and ``CHANGELOG.md``.

    Raises
    ------
    ValueError
        If the tag is for another version, or the changelog has no such section, or an empty one.
    """
    found = re.search(r'^__version__ = "([^"]+)"$', version_module, flags=re.MULTILINE)
    version = found[1] if found else ""
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, but batchify/_version.py has {version or 'none'}")
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    for section in sections:
        title, _, text = section.partition("\n")
        if re.fullmatch(rf"\[?{re.escape(version)}\]?(?: .*)?", title.strip()):
            if not text.strip():
                raise ValueError(f"CHANGELOG.md has no text for {version}")
            return text.strip() + "\n"
    raise ValueError(f"CHANGELOG.md has no section ## {version}; head the changes with it")


def main() -> None:
    """Print the section, or what is wrong."""
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    version_module = (TOP / "batchify" / "_version.py").read_text(encoding="utf-8")
    changelog = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
    try:
        print(notes(sys.argv[1], version_module, changelog), end="")
    except ValueError as error:
        sys.exit(f"release_notes: {error}")


if __name__ == "__main__":
    main()
