"""Dynamic DNS updates (RFC 2136, signed by TSIG, RFC 8945) to the primary of zones delegated to us."""

from __future__ import annotations

import dns.asyncquery
import dns.exception
import dns.name
import dns.rcode
import dns.tsig
import dns.tsigkeyring
import dns.update

from brandproxy.config import Dns
from brandproxy.errors import BadSettings, Final, Retryable
from brandproxy.resolver import Server, parse_servers

_TIMEOUT = 5.0
_TTL = 60  # seconds; our own records in delegated zones change rarely, challenges at once


class UpdateAway(Retryable):
    action = "Check that dns.update_server is up and reachable."


class UpdateRefused(Final):
    action = "Check dns.update_key and the primary's access list for this zone."


class Updater:
    """Adds, replaces and removes records. All methods raise UpdateAway, UpdateRefused."""

    def __init__(self, server: Server, key: str = "") -> None:
        self._server = server
        self._key = _keyring(key) if key else None

    async def replace(self, zone: str, name: str, kind: str, *values: str) -> None:
        """These records and no others of this type at the name; without values: none."""
        update = self._message(zone)
        update.delete(_absolute(name), kind)
        for value in values:
            update.add(_absolute(name), _TTL, kind, value)
        await self._send(zone, update)

    async def add(self, zone: str, name: str, kind: str, value: str) -> None:
        update = self._message(zone)
        update.add(_absolute(name), _TTL, kind, value)
        await self._send(zone, update)

    async def remove(self, zone: str, name: str, kind: str, value: str) -> None:
        update = self._message(zone)
        update.delete(_absolute(name), kind, value)
        await self._send(zone, update)

    def _message(self, zone: str) -> dns.update.UpdateMessage:
        if self._key is None:
            return dns.update.UpdateMessage(_absolute(zone))
        name, key = self._key
        return dns.update.UpdateMessage(_absolute(zone), keyring={name: key}, keyname=name)

    async def _send(self, zone: str, update: dns.update.UpdateMessage) -> None:
        address, port = self._server
        try:
            answer = await dns.asyncquery.tcp(update, address, _TIMEOUT, port)
        except (dns.tsig.PeerError, dns.tsig.BadSignature, dns.tsig.BadKey) as error:
            raise UpdateRefused(f"update of {zone} refused: {error!r}") from error
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise UpdateAway(f"update of {zone} at {address}:{port} failed: {error!r}") from error
        if answer.rcode() == dns.rcode.SERVFAIL:
            raise UpdateAway(f"update of {zone} at {address}:{port}: the server failed (SERVFAIL)")
        if answer.rcode() != dns.rcode.NOERROR:
            raise UpdateRefused(f"update of {zone} refused: {dns.rcode.to_text(answer.rcode())}")


def open_updater(settings: Dns) -> Updater | None:
    """The updater that the settings name, or None when no primary is set."""
    servers = parse_servers(settings.update_server)
    return Updater(servers[0], settings.update_key.get_secret_value()) if servers else None


def _absolute(name: str) -> dns.name.Name:
    return dns.name.from_text(name)


def _keyring(text: str) -> tuple[dns.name.Name, dns.tsig.Key]:
    try:
        name, algorithm, secret = text.split(":", 2)
        key = dns.tsig.Key(name, secret, algorithm)
    except (ValueError, dns.exception.DNSException) as error:
        raise BadSettings("dns.update_key is not name:algorithm:base64") from error
    return key.name, key
