"""Messages for the tests: small builders, and hypothesis strategies over MIME structures."""

from __future__ import annotations

import base64
import quopri
from dataclasses import replace

from hypothesis import strategies as st

import brandproxy
from brandproxy.model import Policy, References, Tenant

BASE = "https://links.acme.test"
NOW = 1_764_000_000
REFS = References("spring", "m-17", "r-4711")
TENANT: Tenant = brandproxy.tenant("acme", b"k" * 32, origins={"media": "https://cdn.acme.test/mail/"})


def with_policy(**fields: object) -> Tenant:
    return replace(TENANT, policy=replace(Policy(), **fields))  # type: ignore[arg-type]


def rewrite(message: bytes, tenant: Tenant = TENANT, base: str | None = BASE) -> brandproxy.Result:
    """Rewrite, and prove on the way what must always hold."""
    result = brandproxy.rewrite(message, tenant, REFS, base, NOW)
    assert brandproxy.unrewrite(result.message, result.report) == message
    again = brandproxy.rewrite(result.message, tenant, REFS, base, NOW)
    assert again.message == result.message, "a second pass changed it"
    return result


def mail(
    body: str | bytes, kind: str = "text/html; charset=utf-8", encoding: str = "8bit", head: str = ""
) -> bytes:
    """A message of one part, CRLF throughout unless the body says otherwise."""
    data = body.encode() if isinstance(body, str) else body
    data = encode(data, encoding)
    top = f"From: a@acme.test\r\n{head}Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return top.encode() + data


def encode(data: bytes, encoding: str) -> bytes:
    if encoding == "base64":
        return base64.encodebytes(data).replace(b"\n", b"\r\n")
    if encoding == "quoted-printable":
        return quopri.encodestring(data.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    return data


def multipart(subtype: str, *parts: bytes, boundary: str = "b1", head: str = "") -> bytes:
    lines = "".join(f"--{boundary}\r\n\0" for _ in parts).split("\0")[:-1]
    body = b"\r\n".join(line.encode() + part for line, part in zip(lines, parts, strict=True))
    top = f'{head}Content-Type: multipart/{subtype}; boundary="{boundary}"\r\n\r\n'
    return top.encode() + body + f"\r\n--{boundary}--\r\n".encode()


def part(
    body: str | bytes, kind: str = "text/html; charset=utf-8", encoding: str = "8bit", head: str = ""
) -> bytes:
    return mail(body, kind, encoding, head).removeprefix(b"From: a@acme.test\r\n")


def verdicts(result: brandproxy.Result) -> list[tuple[str, str]]:
    return [(link.url, link.verdict) for link in result.report.links]


# --- strategies: whatever is drawn, rewriting must restore exactly -----------------------------------------

_eols = st.sampled_from([b"\r\n", b"\n"])
_urls = st.builds(
    "https://{}.test/{}".format,
    st.sampled_from(["www.acme", "xn--mnchen-3ya", "münchen", "a"]),
    st.text(st.sampled_from("abcxyz019/?=&;%._-~@#+"), max_size=90),
)
_prose = st.text(st.sampled_from("abc dé=€.,;:<>\"'()-_\t"), max_size=120)


@st.composite
def _bodies(draw: st.DrawFn) -> tuple[str, str]:
    """(kind, text) of a body with URLs in it."""
    eol = draw(_eols).decode()
    pieces: list[str] = []
    html = draw(st.booleans())
    for _ in range(draw(st.integers(0, 4))):
        url = draw(_urls)
        pieces.append(draw(_prose))
        shape = draw(
            st.sampled_from(['<a href="{}">', "<a href='{}'\n>", "<img src={}>", '<p style="background:url({})">'])
        )
        pieces.append(shape.format(url) if html else draw(st.sampled_from(["{}", "<{}>", "({})"])).format(url))
        pieces.append(draw(st.sampled_from(["", eol, " " + eol, eol * 2])))
    return ("text/html" if html else "text/plain"), "".join(pieces)


@st.composite
def leaves(draw: st.DrawFn) -> bytes:
    kind, text = draw(_bodies())
    charset = draw(
        st.sampled_from(
            ["utf-8", "iso-8859-1", "us-ascii", "windows-1252", "gb18030", "iso-2022-jp", "x-unknown", ""]
        )
    )
    try:
        data = text.encode(charset or "utf-8")
    except (LookupError, UnicodeEncodeError):
        data = text.encode("utf-8")
    encoding = draw(st.sampled_from(["7bit", "8bit", "binary", "quoted-printable", "base64", "x-odd"]))
    wire = encode(data, encoding)
    if encoding in ("quoted-printable", "base64") and draw(st.booleans()):
        wire = wire.replace(b"\r\n", b"\n")
    params = f"; charset={charset}" if charset else ""
    params += draw(st.sampled_from(["", "; format=flowed", "; format=flowed; delsp=yes"]))
    disposition = draw(
        st.sampled_from(["", "", "Content-Disposition: attachment; filename=a.txt\r\n", "X-Other:\r\n a\r\n"])
    )
    head = f"{disposition}Content-Type: {kind}{params}\r\nContent-Transfer-Encoding: {encoding}\r\n"
    eol = draw(_eols)
    return head.encode().replace(b"\r\n", eol) + eol + wire


@st.composite
def entities(draw: st.DrawFn, depth: int = 3) -> bytes:
    """A part: a leaf, or a multipart of parts with a fair share of faults in its boundaries."""
    if depth == 0 or draw(st.integers(0, 2)) == 0:
        return draw(leaves())
    eol = draw(_eols)
    boundary = draw(st.sampled_from(["b", "b=_1", "----=_Part", "b--", "b b", "b:1"])).encode() + b"%d" % depth
    parts = draw(st.lists(entities(depth - 1), max_size=3))
    subtype = draw(st.sampled_from([b"mixed", b"alternative", b"related", b"signed", b"report", b"digest"]))
    out = b'Content-Type: multipart/%s; boundary="%s"' % (subtype, boundary) + eol + eol
    out += draw(st.sampled_from([b"", b"preamble https://acme.test/" + eol]))
    for item in parts:
        out += b"--" + boundary + draw(st.sampled_from([b"", b" ", b"\t"])) + eol + item + draw(_eols)
    if draw(st.integers(0, 3)):
        out += b"--" + boundary + b"--" + eol
    return out + draw(st.sampled_from([b"", b"epilogue https://acme.test/" + eol]))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    top = draw(
        st.sampled_from([b"", b"Subject: a\r\n", b"From x@y Mon Jan 1\nTo: a\n", b"X-Brandproxy-Campaign: c\r\n"])
    )
    broken = draw(st.sampled_from([b""] * 8 + [b"no colon here\r\n", b" leading\r\n", b"DKIM-Signature: v=1\r\n"]))
    unsubscribe = draw(st.sampled_from([b"", b"List-Unsubscribe: <mailto:a@b>,\r\n\t<https://acme.test/u>\r\n"]))
    return top + broken + unsubscribe + draw(entities())
