"""Coverage-guided fuzzing of whole messages: `python -m bench.fuzz_message [SECONDS] [CORPUS FOLDER]`.

Each byte of an input stands for a piece of a message. Whatever they make: rewriting does not raise, the report
restores the message byte for byte, and a second pass changes nothing. The input that fails is kept in bench/out.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["brandproxy"]):
    import brandproxy

OUT = Path(__file__).parent / "out"
TENANT = brandproxy.tenant(
    "fuzz", b"f" * 32, origins={"m": "https://cdn.test/"}, policy=brandproxy.Policy(opens=True)
)
REFS = brandproxy.References("c", "m", "r", 1_764_000_000)
BASE = "https://links.test"
PIECES = [bytes((byte,)) for byte in range(128)]
PIECES += [
    b"\r\n", b"\r\n\r\n", b"\n\n", b"--a", b"--b", b"--a--", b"--b--", b"=\r\n", b"=3D", b"=C3=A9", b"\xc3\xa9",
    b"\xff", b"Content-Type: text/html\r\n", b"Content-Type: text/plain\r\n", b"; charset=utf-8",
    b"; charset=iso-8859-1", b"; format=flowed; delsp=yes", b"Content-Type: multipart/mixed; boundary=a\r\n",
    b"Content-Type: multipart/signed; boundary=b\r\n", b"Content-Type: multipart/alternative; boundary=b\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n", b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: 8bit\r\n", b"Content-Disposition: attachment\r\n", b"Subject: x\r\n", b"From x\n",
    b"List-Unsubscribe: <https://u.test/>\r\n", b"X-Brandproxy-Campaign: x\r\n", b"DKIM-Signature: x\r\n",
    b"https://a.test/b", b"<https://a.test/", b"<a href=\"https://a.test/\">", b"<a href=3D\"https://a.test/\">x</a>",
    b"<img src=https://cdn.test/a.png>", b"</body>", b"PGEgaHJlZj0iaHR0cHM6Ly9hLnRlc3QvIj4=", b"x" * 76,
    b"x" * 900, b" clicktracking=off", b"<!--[if mso]>", b"<style>", b"url(https://cdn.test/a)", b"> ",
    b" \r\n", b"-- \r\n", b"Content-Type: text/html; charset=iso-2022-jp\r\n", b"\x1b$B", b"\x1b(B", b"\x1b(J",
]  # fmt: skip


def check(data: bytes) -> None:
    message = b"".join(PIECES[byte % len(PIECES)] for byte in data)
    result = brandproxy.rewrite(message, TENANT, REFS, BASE, REFS.sent_at)
    if brandproxy.unrewrite(result.message, result.report) != message:
        raise RuntimeError(f"not restored: {message!r}")
    again = brandproxy.rewrite(result.message, TENANT, REFS, BASE, REFS.sent_at)
    if again.message != result.message and "opted out" not in result.report.verdicts:
        raise RuntimeError(f"a second pass changes it: {message!r}")
    brandproxy.restore(result.message, TENANT)


def main() -> None:
    warnings.simplefilter("ignore")
    OUT.mkdir(parents=True, exist_ok=True)
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", f"-artifact_prefix={OUT}/", "-max_len=200", *sys.argv[2:]],
        check,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
