"""Coverage-guided fuzzing of the HTML scanner: `python -m bench.fuzz_html [SECONDS] [CORPUS FOLDER]`.

Each byte of an input stands for a piece of markup, since the patterns that read it are beyond its coverage.
A crash, a span outside the text or out of order, or a splice that changes html5lib's tree ends the run with the
input that did it. html5lib is asked for texts up to 400 characters; it is slow.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["brandproxy.core"]):
    from brandproxy.core.html import scan
from tests.core.html_oracle import ATTRIBUTES, CHARACTERS, NAMES, PIECES, judge

ACCEPTED = ("</br", "<isindex")  # tests/core/test_html_against_html5lib.py gives the reasons

OUT = Path(__file__).parent / "out"  # where the input that failed is kept
WORDS = [*CHARACTERS, *PIECES]
WORDS += [f"<{name}" for name in NAMES] + [f"</{name}>" for name in NAMES] + [f"{a}>" for a in ATTRIBUTES]
WORDS += [
    "url(",
    "'",
    "\\",
    "@import ",
    "image-set(",
    " style='",
    " srcset='",
    " data-brandproxy=off",
    "<!--[if mso]>",
]
WORDS = (WORDS * 2)[:256]


def check(data: bytes) -> None:
    text = "".join(WORDS[byte] for byte in data)
    result = scan(text)
    at = 0
    for found in result.found:
        assert at <= found.start < found.end <= len(text), (text, found)
        assert 0 <= found.content[0] <= found.content[1] <= len(text), (text, found)
        at = found.end
    if len(text) <= 400 and not any(tag in text.lower() for tag in ACCEPTED):
        try:
            complaints = judge(text)
        except AssertionError:  # html5lib's own invariants
            return
        changed = [line for line in complaints if line.startswith("changed")]
        if changed:
            raise RuntimeError(f"{text!r}: {changed}")


def main() -> None:
    warnings.simplefilter("ignore")
    OUT.mkdir(parents=True, exist_ok=True)
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-max_len=200", f"-artifact_prefix={OUT}/", *sys.argv[2:]],
        check,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
