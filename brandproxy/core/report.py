"""What the rewriter did to a message: every URL with its verdict, every part, and the splices that undo it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from brandproxy.core.splice import Layer, Splice
from brandproxy.errors import BadInput

REWRITTEN = "rewritten"
GMAIL_CLIPS_AT = 102 * 1024  # bytes of HTML after which Gmail cuts a message, about
VERSION = 1


class Link(NamedTuple):
    """A URL a mail client could follow or load. `verdict` is `rewritten` or the reason it was left alone."""

    part: str  # path of the leaf, or "header"
    place: str  # "a href", "style", "text", "List-Unsubscribe", …
    url: str
    verdict: str
    new: str = ""
    number: int = 0  # link number in the token; 0 for assets
    private: bool = False
    text_host: str = ""  # the visible text is a URL of this other host: phishing filters look at that
    content: str = ""  # HTML between the tags, cut

    @property
    def label(self) -> str:
        """The text of the link as a person sees it, in one line."""
        from bs4 import BeautifulSoup

        soup = BeautifulSoup(self.content, "html.parser")
        alt = " ".join(str(image["alt"]) for image in soup.find_all("img", alt=True))
        return (" ".join(soup.get_text(" ").split()) or alt)[:120]


class PartReport(NamedTuple):
    path: str
    type: str
    charset: str
    encoding: str
    size: int
    reason: str = ""  # why it was left alone; empty: it was read


@dataclass(frozen=True, slots=True)
class Report:
    """`reason` is set when the whole message was left alone. Sizes are bytes on the wire."""

    tenant: str
    base_url: str
    size: int
    new_size: int
    reason: str = ""
    links: tuple[Link, ...] = ()  # every candidate, in the order of the message
    parts: tuple[PartReport, ...] = ()
    splices: tuple[Splice, ...] = field(default=(), repr=False)
    layers: tuple[Layer, ...] = field(default=(), repr=False)
    pixel: bool = False
    notes: tuple[str, ...] = ()

    @property
    def rewritten(self) -> tuple[Link, ...]:
        return tuple(link for link in self.links if link.verdict == REWRITTEN)

    @property
    def skipped(self) -> tuple[Link, ...]:
        return tuple(link for link in self.links if link.verdict != REWRITTEN)

    @property
    def verdicts(self) -> dict[str, int]:
        """How often each verdict was given: what metrics count."""
        return dict(Counter(link.verdict for link in self.links))

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Bytes become strings of one character a byte (Latin-1), so the report restores exactly."""
        data: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        data["links"] = [{**link._asdict(), "label": link.label if link.content else ""} for link in self.links]
        data["splices"] = [
            {
                **splice._asdict(),
                "before": splice.before.decode("latin-1"),
                "after": splice.after.decode("latin-1"),
            }
            for splice in self.splices
        ]
        data["parts"] = [part._asdict() for part in self.parts]
        data["layers"] = [asdict(layer) for layer in self.layers]
        return {"version": VERSION, "verdicts": self.verdicts, **data}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        """Raises BadInput when `data` is no report of a version we know."""
        try:
            if data["version"] != VERSION:
                raise ValueError(f"version {data['version']}")
            known = {name: data[name] for name in ("tenant", "base_url", "size", "new_size", "reason", "pixel")}
            return cls(
                **known,
                links=tuple(Link(**{k: v for k, v in link.items() if k != "label"}) for link in data["links"]),
                parts=tuple(PartReport(**part) for part in data["parts"]),
                splices=tuple(
                    Splice(s["part"], s["start"], s["before"].encode("latin-1"), s["after"].encode("latin-1"))
                    for s in data["splices"]
                ),
                layers=tuple(Layer(**layer) for layer in data["layers"]),
                notes=tuple(data["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"not a report of this version: {error}") from error


@dataclass(frozen=True, slots=True)
class Result:
    """`message` is the very same object when nothing changed."""

    message: bytes = field(repr=False)
    report: Report
