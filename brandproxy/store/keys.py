"""The names under which things are kept in the store. Nobody spells a key anywhere else.

tenant/<slug>        Tenant as JSON            host/<name>         Host as JSON
target/<label>       tombstone of a CNAME target, for ever: the name and the tenant it was given to
claim/<name>/<slug>  Host as JSON: a claim beside `host/<name>`
access/<id>          API key (hash, scopes)    access-use/<id>     when it was last used
session/<hash>       a sign-in, sealed         cert/<name>         certificate chain and sealed key
challenge/<name>/<token>  HTTP-01 answer       acme/…              accounts, orders, budget, back-off
watch/<host>[/<slug>]  what DNS checks saw      zone/<zone>          Zone as JSON
mailing/<slug>/<…>   a campaign's HTML, for the click map
webhook/<id>         Webhook                   webhook-place/<id>[/<lane>], webhook-dead/<id>/<batch>
notice/<id>          a change of a host or certificate, for webhooks
block/<id>           kill-list entry           audit/<uuid7>       audit entry
identity/<login>     whose mail a login at the mail server sends (a Grant)
sender/<domain>      the claims to a sending domain (a list of Sender)
sendertarget/<label>  tombstone of a claim's label, for ever
dkimrecord/<label>/<selector>   what we publish behind a label (old: a slug); dkimpush/… its update is due
formertenant/<slug>  tombstone of a removed tenant, for ever
upgraded/<what>      a change of older records that was made
copying                what `store copy` left here; written by `copying` alone
retention/<slug>     since when a tenant's `keep_days` is in force; `*`: the operator's
ticket/<period>      secret of TLS session tickets, sealed
purge/<slug>/<object>  order to forget a cached object, or all (empty)
"""

TENANT = "tenant/"
HOST = "host/"
CLAIM = "claim/"
TARGET = "target/"
ACCESS = "access/"
ACCESS_USE = "access-use/"
SESSION = "session/"
CERT = "cert/"
CHALLENGE = "challenge/"
ACME = "acme/"
WATCH = "watch/"
ZONE = "zone/"
WEBHOOK = "webhook/"
NOTICE = "notice/"
BLOCK = "block/"
AUDIT = "audit/"
PURGE = "purge/"
RETENTION = "retention/"
SENDER = "sender/"
IDENTITY = "identity/"
SENDER_TARGET = "sendertarget/"
DKIM_RECORD = "dkimrecord/"
DKIM_PUSH = "dkimpush/"
MAILING = "mailing/"
TICKET = "ticket/"


def tenant(slug: str) -> str:
    return TENANT + slug


def host(name: str) -> str:
    return HOST + name


def claim(name: str, tenant_slug: str) -> str:
    return f"{CLAIM}{name}/{tenant_slug}"


def target(label: str) -> str:
    return TARGET + label


def access(key_id: str) -> str:
    return ACCESS + key_id


def access_use(key_id: str) -> str:
    return ACCESS_USE + key_id


def session(digest: str) -> str:
    return SESSION + digest


def cert(host_name: str) -> str:
    return CERT + host_name


def challenge(host_name: str, token: str) -> str:
    return f"{CHALLENGE}{host_name}/{token}"


def watch(host_name: str, tenant_slug: str = "") -> str:
    """`tenant_slug`: of a claim beside the host's record."""
    return f"{WATCH}{host_name}/{tenant_slug}" if tenant_slug else WATCH + host_name


def zone(name: str) -> str:
    return ZONE + name


def acme(*parts: str) -> str:
    return ACME + "/".join(parts)


def mailing(tenant_slug: str, campaign_digest: str) -> str:
    return f"{MAILING}{tenant_slug}/{campaign_digest}"


def webhook(webhook_id: str) -> str:
    return WEBHOOK + webhook_id


def webhook_place(webhook_id: str, lane: str) -> str:
    """The lane of events was the only one once: its key is the bare one."""
    return f"webhook-place/{webhook_id}" + (f"/{lane}" if lane != "events" else "")


def webhook_dead(webhook_id: str, batch_id: str) -> str:
    return f"webhook-dead/{webhook_id}/{batch_id}"


def notice(notice_id: str) -> str:
    return NOTICE + notice_id


def block(block_id: str) -> str:
    return BLOCK + block_id


def audit(entry_id: str) -> str:
    return AUDIT + entry_id


def purge(slug: str, object_: str) -> str:
    return f"{PURGE}{slug}/{object_}"


def retention(slug: str) -> str:
    return RETENTION + slug


def identity(login: str) -> str:
    return IDENTITY + login


def sender(domain: str) -> str:
    return SENDER + domain


def sender_target(label: str) -> str:
    return SENDER_TARGET + label


def dkim_record(owner: str, selector: str = "") -> str:
    """`owner`: a sender's label, or the slug of a tenant whose keys were published before there were labels."""
    return f"{DKIM_RECORD}{owner}/{selector}"


def dkim_push(record_key: str) -> str:
    return DKIM_PUSH + record_key.removeprefix(DKIM_RECORD)


def former_tenant(slug: str) -> str:
    return f"formertenant/{slug}"


def upgraded(what: str) -> str:
    return f"upgraded/{what}"


def ticket(period: int) -> str:
    return f"{TICKET}{period}"
