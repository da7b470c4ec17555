"""Mails of the corpus as a customer would submit them, each with its number, and what a mail server adds."""

from __future__ import annotations

import re
from base64 import encodebytes
from itertools import cycle, islice
from pathlib import Path
from quopri import encodestring

NUMBER = re.compile(rb"^X-Number: (\d+)\r$", re.M)
_CLEAN = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_ADDED = re.compile(
    rb"(?:Received|Return-Path|Message-Id|Date|DKIM-Signature|Authentication-Results):"
    rb"(?:[^\n]*\n)(?:[ \t][^\n]*\n)*",
    re.I,
)


def mails(corpus: Path, count: int) -> dict[int, bytes]:
    """`count` different mails: whole ones as they are, HTML pages as mails in three transfer encodings.

    They are what SMTP can carry (CRLF, no NUL) with a well-formed header: a mail server repairs the others
    before any filter sees them.
    """
    whole = [path.read_bytes() for path in sorted(corpus.rglob("*.eml"))]
    pages = [path.read_bytes() for path in sorted(corpus.rglob("*.html"))]
    found = [_mail(page, at) for at, page in enumerate(pages) if len(page) < 300_000]
    found = [mail if mail.endswith(b"\r\n") else mail + b"\r\n" for mail in found]
    found += [mail for raw in whole if (mail := _submittable(raw)) and len(mail) < 2_000_000]
    return {number: b"X-Number: %d\r\n" % number + mail for number, mail in enumerate(islice(cycle(found), count))}


def number(message: bytes) -> int:
    found = NUMBER.search(message)
    assert found is not None, message[:500]
    return int(found[1])


def without_additions(message: bytes) -> bytes:
    """The message from the header that the client wrote first on."""
    found = NUMBER.search(message)
    assert found is not None
    added = message[: found.start()]
    assert not _ADDED.sub(b"", added), added
    return message[found.start() :]


def _mail(page: bytes, at: int) -> bytes:
    lines = _CLEAN.sub(b"\n", page).replace(b"\r\n", b"\n")
    name, body = (
        ("8bit", lines),
        ("quoted-printable", encodestring(lines)),
        ("base64", encodebytes(page)),
    )[at % 3]
    head = (
        b"From: Acme <news@acme.example>\r\nTo: you@example.org\r\nSubject: Page\r\n"
        b"Date: Mon, 1 Jun 2026 08:00:00 +0000\r\nMessage-Id: <page-%d@acme.example>\r\nMIME-Version: 1.0\r\n" % at
    )
    head += b"Content-Type: text/html; charset=utf-8\r\n"
    return head + b"Content-Transfer-Encoding: " + name.encode() + b"\r\n\r\n" + body.replace(b"\n", b"\r\n")


def _submittable(raw: bytes) -> bytes:
    """A stored mail as a client would say it, or nothing when no server takes it as it is."""
    mail = _CLEAN.sub(b"\r\n", raw)
    head, blank, _ = mail.partition(b"\r\n\r\n")
    if not blank or b"\0" in mail or not re.search(rb"^Date:", head, re.M | re.I):
        return b""
    lines = head.split(b"\r\n")
    well_formed = all(re.match(rb"[!-9;-~]+:|[ \t]+\S", line) for line in lines) and lines[0][:1] not in b" \t"
    names = [line.partition(b":")[0].lower() for line in lines]
    kept = well_formed and not {b"received", b"return-path", b"bcc", b"resent-bcc", b"content-length"} & set(names)
    ends = mail.endswith(b"\r\n")
    return mail if kept and ends and b"message-id" in names else b""
