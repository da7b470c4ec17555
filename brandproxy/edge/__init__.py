"""Floor 4, the edge: where recipients arrive. It serves recipients only; no admin route exists here.

- `workers`     sockets, fork, watch: `run(settings)`
- `worker`      one process: listeners, spool, directory
- `open_connections`  how many there may be, in all and from one network; what ends them
- `tickets`     secrets of TLS session tickets;  `openssl`  what Python's ssl has no call for
- `tls`         SNI name to certificate, inside the handshake
- `secured`     TLS of one connection, between its transport and its protocol
- `connection`  one connection; the short cut for a click or open in one read
- `gathering`   clicks and opens that come close together are answered in one go
- `parsed`      every other connection: the strict reader, then uvicorn and the application
- `balanced`    accepting behind a load balancer: PROXY protocol v2
- `app`         routes to answers, as an ASGI application
- `links`       what a signed link answers: clicks, opens, unsubscribe pages
- `unsubscribe` RFC 8058 one-click: queued on disk, forwarded until it arrives
- `answers`     answers as values; the small pages
- `privacy`     what is kept of a client's address
- `challenges`  HTTP-01 answers for any pending order
- `assets`      objects of a tenant's storage under the tenant's name
"""
