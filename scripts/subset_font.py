"""Make the font of the contact sheet: subset_font.py NotoSans-Regular.ttf.

The source is Noto Sans Regular 2.004 by Google, of https://github.com/notofonts/noto-fonts, as in
Debian's package fonts-noto-core 20201225-1:

    apt-get download fonts-noto-core && dpkg-deb -x fonts-noto-core_*.deb noto
    pip install fonttools==4.68.0
    python scripts/subset_font.py noto/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf

The same source gives the same bytes. Its license is next to the result, NotoSans-OFL.txt.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from fontTools import subset

SOURCE_SHA256 = "89c3c497f618fdaa0b2d1e98fef93582f28c71debd2c4a8cdf41f190ced2909d"
RESULT = Path(__file__).resolve().parent.parent / "batchify" / "reporting" / "NotoSans-subset.ttf"

CHARACTERS = {
    "Latin": "20-7E A0-24F 1E00-1EFF 2C60-2C7F",
    "letters of African and Turkic alphabets, among them IPA": "250-2AF",
    "accents": "2B0-2FF 300-36F",
    "Greek": "370-3FF 1F00-1FFF",
    "Cyrillic": "400-52F",
    "punctuation": "2010-2027 202F-205E",
    "digits above and below": "2070-209C",
    "currencies": "20A0-20BF",
    "symbols": "2103 2109 2113 2116 2122 2126 212A 212B 2150-215E 2190-2193 2202 2206 220F",
    "mathematics": "2211 2212 2215 2219 221A 221E 222B 2248 2260 2264 2265 25CA 25CC FFFD",
}


def main() -> None:
    """Check the source and write the subset."""
    source = Path(sys.argv[1])
    if hashlib.sha256(source.read_bytes()).hexdigest() != SOURCE_SHA256:
        sys.exit(f"{source} is not the font that the docstring names")
    ranges = [f"U+{each}" for each in " ".join(CHARACTERS.values()).split()]
    subset.main([
        str(source),
        f"--output-file={RESULT}",
        f"--unicodes={','.join(ranges)}",
        "--no-hinting",
        "--layout-features=",  # text without shaping looks the same with and without libraqm
        "--drop-tables+=GSUB,GPOS,GDEF",
        "--notdef-outline",
        "--no-recalc-timestamp",
    ])  # fmt: skip
    print(f"{RESULT}: {RESULT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
