"""ClickHouse's HTTP interface over chDB, the real engine in this process: for tests only.

`python -m tests.clickhouse_server PORT FOLDER`. One process per folder; chDB is never forked and is closed before
the process ends. Statements run one after the other.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from tempfile import NamedTemporaryFile
from urllib.parse import parse_qsl, urlsplit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 0.2  # one connection is served at a time; an idle one must not hold up the others

    def do_POST(self) -> None:
        asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        query = asked.pop("query", "")
        try:
            content, status = self._execute(asked, f"{query}\n".encode() + body if query else body), 200
        except Exception as error:
            content, status = str(error).encode(), 500
        self.send_response(status)
        if status != 200 and content.startswith(b"Code: "):
            self.send_header("X-ClickHouse-Exception-Code", content[6:].split(b".")[0].decode())
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def _execute(self, asked: dict[str, str], statement: bytes) -> bytes:
        session = self.server.session  # type: ignore[attr-defined]
        asked.pop("async_insert", None)  # would wait for company that cannot come
        if database := asked.pop("database", ""):
            session.query(f"USE {database}")
        for name, value in asked.items():
            quoted = value.replace("\\", "\\\\").replace("'", "\\'")
            session.query(f"SET {name} = '{quoted}'")
        try:
            text = statement.decode()
        except UnicodeDecodeError:  # a binary format: chDB takes it from a file
            head, _, rows = statement.partition(b"\n")
            with NamedTemporaryFile() as file:
                file.write(rows)
                file.flush()
                return self._query(head.decode().replace(" FORMAT ", f" FROM INFILE '{file.name}' FORMAT "))
        return self._query(text)

    def _query(self, text: str) -> bytes:
        return bytes(self.server.session.query(text, "TabSeparated").bytes())  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass


def main(port: int, folder: str) -> None:
    from chdb.session import Session

    server = HTTPServer(("127.0.0.1", port), Handler)
    server.session = Session(folder)  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit))
    with suppress(SystemExit, KeyboardInterrupt):
        server.serve_forever()
    server.session.close()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
