"""Floor 4, the edge: where recipients arrive. It serves recipients only; no admin route exists here.

- `workers`     sockets, fork, watch: `run(settings)`
- `worker`      one process: listeners, spool, directory
- `tls`         SNI name to certificate, inside the handshake
- `connection`  one connection and its bounds
- `app`         routes to answers, as an ASGI application
- `links`       what a signed link answers: clicks, opens, unsubscribe pages
- `answers`     answers as values; the small pages
- `privacy`     what is kept of a client's address
- `challenges`  HTTP-01 answers for any pending order
- `assets`      objects of a tenant's storage under the tenant's name
"""
