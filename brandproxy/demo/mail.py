"""The demo's own campaign mail, and the images its origin serves."""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

IMAGES = "https://media.acme.example/"  # how the mail names the origin; the files lie in the data directory

_HTML = """\
<!DOCTYPE html>
<html lang="en" xmlns:v="urn:schemas-microsoft-com:vml">
<head>
<meta charset="utf-8">
<title>Autumn on the ridge</title>
<style>
  .hero { background: #24483e url('https://media.acme.example/ridge.png') center / cover; }
  a { color: #24483e }
</style>
</head>
<body style="margin:0; background:#f4f1ea; font:16px/1.5 Georgia, serif; color:#222">
<table role="presentation" width="600" align="center" cellpadding="0" cellspacing="0" bgcolor="#ffffff">
<tr><td class="hero" background="https://media.acme.example/ridge.png" height="180" align="center">
  <img src="https://media.acme.example/logo.png" width="120" height="60" alt="Acme Outdoor">
</td></tr>
<tr><td style="padding:24px">
  <h1 style="font-weight:normal">Autumn on the ridge</h1>
  <p>The new boots are in. They walked 900&nbsp;km before we let them near a shop &mdash;
  <a href="https://acme.example/boots?size=42&amp;colour=moss&amp;utm_source=newsletter&amp;utm_medium=email">see
  how they held</a>, or ask <a href='https://acme.example/people/@ines#boots'>Ines</a>, who wore them.</p>
  <p><a href="https://acme.example/hütten?tal=Ötztal&amp;copy=2">Huts of the Ötztal</a>, open in November.</p>
  <!--[if mso]>
  <v:roundrect xmlns:v="urn:schemas-microsoft-com:vml" href="https://acme.example/sale?from=outlook&amp;n=1"
      style="height:44px;width:220px;v-text-anchor:middle" arcsize="12%" fillcolor="#24483e" stroke="f">
    <center style="color:#ffffff">To the autumn sale</center>
  </v:roundrect>
  <![endif]-->
  <!--[if !mso]><!-->
  <p><a href="https://acme.example/sale?from=button&amp;n=1"
     style="background:#24483e; color:#fff; padding:12px 32px; text-decoration:none">To the autumn sale</a></p>
  <!--<![endif]-->
  <img src="https://media.acme.example/boots.png" width="552" alt="A pair of boots on a rock"
       srcset="https://media.acme.example/boots.png 1x, https://media.acme.example/boots@2x.png 2x">
  <p style="font-size:13px; color:#777">
    Your login: <a data-brandproxy="private" href="https://acme.example/login/once/7f3a">open without password</a>.
    Questions: <a href="mailto:hello@acme.example">hello@acme.example</a>.</p>
</td></tr>
</table>
</body>
</html>
"""

_TEXT = """\
Autumn on the ridge

The new boots are in: https://acme.example/boots?size=42&colour=moss
Huts that are open in November (<https://acme.example/huts>).

To the autumn sale: https://acme.example/sale?from=text&n=1.

--
Acme Outdoor, hello@acme.example
"""

_PICTURES = {"logo.png": (240, 120), "ridge.png": (600, 180), "boots.png": (552, 260), "boots@2x.png": (1104, 520)}


def campaign() -> bytes:
    """The mail as an ESP's pipeline would hand it over, RFC 5322 bytes with CRLF."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = "Acme Outdoor <news@acme.example>"
    mail["To"] = "Robin <robin@example.net>"
    mail["Subject"] = "Autumn on the ridge"
    mail["Message-ID"] = "<autumn-ridge.1@acme.example>"
    mail["Date"] = "Mon, 02 Nov 2026 07:30:00 +0000"
    mail["List-Unsubscribe"] = "<https://esp.example/u/7f3a?list=news>"
    mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail.set_content(_TEXT, cte="8bit")
    mail.add_alternative(_HTML, subtype="html", cte="quoted-printable")
    return mail.as_bytes()


def draw_pictures(folder: Path) -> None:
    """The origin's objects: a hill under a sky, at the sizes the mail names."""
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    for name, (width, height) in _PICTURES.items():
        if (folder / name).exists():
            continue
        image = Image.new("RGB", (width, height), "#dfe9e4")
        draw = ImageDraw.Draw(image)
        draw.polygon([(0, height), (width * 0.4, height * 0.25), (width * 0.9, height)], fill="#24483e")
        draw.polygon([(width * 0.3, height), (width * 0.75, height * 0.4), (width, height)], fill="#3f6b5d")
        draw.ellipse((width * 0.78, height * 0.1, width * 0.78 + height * 0.2, height * 0.3), fill="#e7b75f")
        image.save(folder / name)
