"""Floor 4, in front of mail servers: every way a message reaches the rewriting library and goes on.

- `lookup`    whose message it is, in one stated order
- `pipeline`  what all ways share: tenant, references, time limits, failure policy, shedding, metrics
- `milter`    Postfix and Sendmail ask about each message (protocol in `core.milter`)
- `smtp`      SMTP and LMTP proxy: after-queue content filter, submission relay; `nexthop` is its way on
- `http`      `POST /v1/rewrite`

The pipe (`brandproxy rewrite`) is a command of its own, `cli.rewrite`: it starts, rewrites one message, ends.
Nothing here keeps a message: the sender has its answer when the next hop has given its own.
"""
