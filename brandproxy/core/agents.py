"""What a User-Agent header tells: the program's family and the sort of device.

Parsing is ua-parser's (the uap-core patterns); which family is a bot or a tablet is decided here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

MAX_AGENT = 512  # characters looked at; what a client sends beyond that tells nothing more

_TABLET = ("iPad", "Tablet", "Kindle", "PlayBook")
_MOBILE = ("Mobile", "iPhone", "Android", "iPod", "Windows Phone")
_DESKTOP = ("Windows NT", "Macintosh", "X11", "CrOS", "Linux")
_BOT = ("bot", "crawler", "spider", "imageproxy", "preview", "curl/", "python-", "wget/", "go-http-client")


class Agent(NamedTuple):
    client: str  # "Firefox", "Apple Mail", …; "" when unknown
    device: str  # desktop, mobile, tablet, bot; "" when unknown


def describe(agent: str) -> Agent:
    return _describe(agent[:MAX_AGENT]) if agent else Agent("", "")


@lru_cache(maxsize=4096)
def _describe(agent: str) -> Agent:
    from ua_parser import parse_user_agent

    found = parse_user_agent(agent)
    return Agent(found.family if found else "", _device(agent))


def _device(agent: str) -> str:
    """In this order: what calls itself a bot; Android without "Mobile" is a tablet (Google's convention)."""
    if any(word in agent.lower() for word in _BOT):
        return "bot"
    if any(word in agent for word in _TABLET) or ("Android" in agent and "Mobile" not in agent):
        return "tablet"
    if any(word in agent for word in _MOBILE):
        return "mobile"
    return "desktop" if any(word in agent for word in _DESKTOP) else ""
