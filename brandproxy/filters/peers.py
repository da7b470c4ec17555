"""Who may do what by where he comes from."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from brandproxy import grants
from brandproxy.config import Mail
from brandproxy.errors import BadSettings

Address = IPv4Address | IPv6Address
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class Peers:
    """A set of networks, with or without those who come by a UNIX socket."""

    def __init__(self, texts: Iterable[str]) -> None:
        found = [grants.network(text) for text in texts]
        self.unix = None in found
        self.networks = [network for network in found if network is not None]

    def __contains__(self, address: Address | None) -> bool:
        if address is None:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self.networks)

    @property
    def loopback(self) -> bool:
        return any(network.overlaps(own) for network in self.networks for own in _LOOPBACK
                   if network.version == own.version)  # fmt: skip


def address_of(peer: Any) -> Address | None:
    """Of a socket's peer name; None for UNIX sockets."""
    return ip_address(peer[0].partition("%")[0]) if isinstance(peer, tuple) and peer else None


def listeners(mail: Mail, kind: str, *main: tuple[str, str]) -> list[tuple[str, grants.Grant | None]]:
    """Every address of that kind with what its mail may be; `main`: those with settings of their own."""
    found = [(where, mail.listeners.get(name)) for name, where in main if where]
    more = ((grants.listener(name), grant) for name, grant in mail.listeners.items())
    return found + [(where, grant) for (its, where), grant in more if its == kind and where]


def check(mail: Mail) -> None:
    """Raises BadSettings when a listener lets in more than those it was opened for."""
    main = (("smtp", mail.smtp), ("smtps", mail.smtps), ("lmtp", mail.lmtp))
    proxies = [*listeners(mail, "smtp", *main), *listeners(mail, "lmtp")]
    for where, _ in proxies:
        if _is_public(where) and Peers(mail.networks).loopback and not Peers(mail.proxy_networks).networks:
            raise BadSettings(
                f"the mail proxy listens at {where} while mail.networks lets programs on this machine send"
                " without a login, and a balancer here makes everybody one: set mail.networks without loopback,"
                " or name the balancers in mail.proxy_networks"
            )
    for where, _ in listeners(mail, "milter", ("milter", mail.milter)):
        if _is_public(where) and all(network.is_loopback for network in Peers(mail.milter_networks).networks):
            raise BadSettings(
                f"the milter listens at {where} while mail.milter_networks lets in this machine only: set"
                " mail.milter_networks to the networks of your mail servers"
            )


def _is_public(where: str) -> bool:
    if where.startswith("unix:"):
        return False
    host = where.rpartition(":")[0].strip("[]").lower()
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost" and not host.endswith(".localhost")
