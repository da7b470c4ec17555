"""Floor 1, the pure core: bytes, values and `now` in; values out. No socket, store, clock or logger.

- `urls`      which destinations may be signed and followed, and how they go into a Location header
- `tokens`    the signed tokens of all four kinds; a promise once mailed
- `html`      every URL in an HTML text with its exact span; on top of `tokenizer` (what is a tag), `places`
              (which attributes), `charrefs`, `css`, `srcset`
- `delivery`  how a stored object is answered: conditions, ranges, headers
- `media`     which media types are shown, which are only downloaded
- `addresses` which addresses outbound HTTP may reach
- `events`    an event to a spool record and back
- `machines`  which events machines made
"""
