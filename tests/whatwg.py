"""Node's WHATWG URL parser, which reads a batch of URLs as browsers do; it shares no code with ours."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tests.conftest import need_program

# What a server makes of a request is asked as well: octets that need no encoding are decoded (RFC 3986 §6.2.2.2),
# and what then is a dot segment is one.
_READ = """
const read = text => {
  try {
    const url = new URL(text)
    const plain = url.pathname.replace(/%([0-9a-f]{2})/gi, (whole, hex) => {
      const char = String.fromCharCode(parseInt(hex, 16))
      return /[A-Za-z0-9._~-]/.test(char) ? char : whole.toUpperCase()
    })
    const path = new URL(url.origin + plain).pathname
    return {scheme: url.protocol.slice(0, -1), host: url.hostname.replace(/[.]$/, ''), port: url.port, path,
            query: url.search.slice(1)}
  } catch { return null }
}
const urls = JSON.parse(require('fs').readFileSync(0, 'utf8'))
process.stdout.write(JSON.stringify(urls.map(read)))
"""


@dataclass(frozen=True, slots=True)
class Read:
    """`path` as a server takes it, the rest as the browser sends it; the host without a final dot."""

    scheme: str
    host: str
    port: str
    path: str
    query: str


def read(urls: Sequence[str]) -> list[Read | None]:
    """One answer a URL; None where a browser goes nowhere."""
    node = need_program("node", "npm")
    done = subprocess.run(
        [node, "-e", _READ], input=json.dumps(urls), capture_output=True, text=True, check=True, timeout=60
    )
    return [Read(**found) if found else None for found in json.loads(done.stdout)]
