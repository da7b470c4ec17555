"""Floor 1, the pure core: bytes, values and `now` in; values out. No socket, store, clock or logger.

- `urls`      which destinations may be signed and followed, and how they go into a Location header
- `tokens`    the signed tokens of all four kinds; a promise once mailed
- `html`      every URL in an HTML text with its exact span; on top of `tokenizer` (what is a tag), `collect` and
              `places` (which attributes), `charrefs`, `css`, `srcset`; `tree` (with `openelements`, `endtags`,
              `vocabulary`) is asked where open elements decide
- `rewrite`   the rewriter: decides about a message; `judging` about each URL of a body, by `policy`
- `mime`      where the leaf parts lie, to the byte; `mimetype` reads Content-* values
- `encoding`  transfer encodings and edits as splices of wire bytes, on top of `charset`, `iso2022` and `splice`
- `headers`   control headers, List-Unsubscribe, signatures
- `text`      URLs in text/plain, however it was wrapped
- `links`     the links we mint, and recognising them
- `report`    what was done to a message; `restore` is the way back with keys alone; `template` compiles
- `reasons`   why something was left alone, in words
- `delivery`  how a stored object is answered: conditions, ranges, headers
- `objects`   names, life times and forms of stored objects
- `snapshot`  copies of mailed images: which, and under which name
- `sheets`    style sheets served as assets: what they name, from their new address
- `media`     which media types are shown, which are only downloaded
- `addresses` which addresses outbound HTTP may reach
- `events`    an event to a spool record and back
- `machines`  which events machines made
- `neighbours` verdicts that need more than one event
- `agents`    what a User-Agent header tells
- `domains`   public suffixes: which names one customer can own
- `records`   DNS records wanted and seen, and whether control is proven
- `findings`  what is wrong with them, in words, with a fix
- `caa`       may this CA issue for the name
- `watching`  when to look again, and when states move
- `proxyprotocol`  what a TCP load balancer says of a client
- `networks`  sets of networks an address may be in
"""
