"""Floor 4, in front of mail servers: every way a message reaches the rewriting library and goes on.

- `milter`    Postfix and Sendmail ask about each message (the protocol is `core.milter`)
- `smtp`      SMTP and LMTP proxy: after-queue content filter, tenants' relay; `smtpd` is its side towards the
              client, `nexthop` its way on
- `http`      `POST /v1/rewrite`
- `pipeline`  what all ways share: tenant, references, time limits, failure policy, shedding, metrics
- `lookup`    whose message it is, in one stated order; `control` is what a message says of itself
- `listening` sockets, and leaving gracefully

The pipe (`brandproxy rewrite`) is a command of its own, `cli.rewrite`: it starts, rewrites one message, ends.
Nothing here keeps a message: the sender has its answer when the next hop has given its own.
"""
