"""Redis URLs to clients, for the store and for the stream of events.

    redis://user:password@host:6379/0                     one server; rediss:// with TLS
    redis+sentinel://user:password@s1:26379,s2:26379/mymaster/0      whatever Sentinel calls the master
    redis+cluster://user:password@n1:6379,n2:6379         a cluster, found from any of its nodes

`rediss+sentinel` and `rediss+cluster` speak TLS. Query: `ca=FILE` trusts this CA, `cert=FILE` and `key=FILE`
present a client certificate; `sentinel_user=` and `sentinel_password=` when the Sentinels ask for their own;
`replicas=N`: a change of the store counts as made when N replicas have it, so that no fail-over loses it.

Commands are never retried silently: a repeated `create` would take its own first try for somebody else's.
A connection that died while idle is noticed when it is taken from the pool, so a restart costs no error.
"""

from __future__ import annotations

import ssl
from typing import Any

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
)

from brandproxy import service_urls
from brandproxy.errors import BadSettings, StoreUnavailable
from brandproxy.service_urls import RedisUrl

Client = Redis | RedisCluster
# What a client raises when the server is away, full, loading, or refuses us. The second is no RedisError: it says
# that no node of a cluster answers.
FAULTS = (RedisError, RedisClusterException, OSError)

_TIMEOUT = 3.0  # seconds without an answer until a server counts as away; blocking reads stay below it
_CONNECT = 1.0  # seconds for a connection: short, so that a healed network is noticed within 2 s


def parse(url: str) -> RedisUrl:
    """Raises BadSettings; the message never repeats the password."""
    try:
        return service_urls.redis(url)
    except ValueError as error:
        raise BadSettings(f"Redis URL: {error}", "Correct `store` or `analytics.stream`.") from error


def connect(url: str) -> Client:
    """A client that has not connected yet. Raises BadSettings."""
    to = parse(url)
    # Answers as bytes (protocol 2): the shapes do not depend on the server's version.
    common: dict[str, Any] = {
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _CONNECT,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **_tls(to),
    }
    login: dict[str, Any] = {"username": to.user, "password": to.password}
    if to.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in to.hosts]
        # A moved slot is patched in; the other way, reading all anew, closes connections that are in use.
        return RedisCluster(startup_nodes=nodes, reinitialize_steps=0, **login, **common)
    if to.kind == "sentinel":
        asked = {"username": to.query.get("sentinel_user"), "password": to.query.get("sentinel_password")}
        sentinels = Sentinel(list(to.hosts), sentinel_kwargs={**common, **asked})  # type: ignore[no-untyped-call]
        master: Redis = sentinels.master_for(to.master, db=to.db, **login, **common)
        return master
    host, port = to.hosts[0]
    return Redis(host=host, port=port, db=to.db, **login, **common)


_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (AuthenticationError, "Check user and password in the URL (special characters as %XX)."),
    (AuthorizationError, "Check user and password in the URL (special characters as %XX)."),
    (NoPermissionError, "Give the user the rights named in docs/fleet.md."),
    (MasterNotFoundError, "Check the master's name in the URL, and that a majority of the Sentinels runs."),
    (OutOfMemoryError, "Redis's memory is full (maxmemory): give it more; deleting is allowed meanwhile."),
)


def away(what: str, error: Exception) -> StoreUnavailable:
    """A fault in words of ours, with what to do about it. Retryable also when a password is wrong: nodes serve
    from their copies until it is right."""
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return StoreUnavailable(f"{what}: {type(error).__name__}: {error}", advice)
    if isinstance(error.__cause__ or error.__context__, ssl.SSLError):
        advice = "Check that the port speaks TLS, and `ca`, `cert` and `key` of the URL."
        return StoreUnavailable(f"{what}: {error.__cause__ or error.__context__}", advice)
    return StoreUnavailable(f"{what}: {type(error).__name__}: {error}")


async def close(client: Client) -> None:
    """Close the client, and the clients it asks the Sentinels with."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for sentinel in manager.sentinels if manager else ():
        await sentinel.aclose()
    await client.aclose()


def _tls(to: RedisUrl) -> dict[str, object]:
    if not to.tls:
        return {}
    names = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
    files = {option: to.query[name] for name, option in names.items() if name in to.query}
    return {"ssl": True, "ssl_cert_reqs": "required", **files}
