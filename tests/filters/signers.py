"""Signers that run behind us, as docs/recipes/signing.md says: OpenDKIM and Rspamd as milters."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.conftest import free_port, need_program
from tests.filters.mta import wait_for
from tests.filters.recipes import lines

Signer = Callable[[Path], AbstractContextManager[tuple[int, bytes]]]  # port of its milter, TXT record of its key


@contextmanager
def opendkim(home: Path) -> Iterator[tuple[int, bytes]]:
    """It signs everybody's mail, as acme.example."""
    program, make_key = need_program("opendkim", "opendkim"), need_program("opendkim-genkey", "opendkim-tools")
    port = free_port()
    subprocess.run([make_key, "-D", home, "-d", "acme.example", "-s", "s1"], check=True, capture_output=True)
    settings = home / "opendkim.conf"
    (home / "keys").write_text(f"s1 acme.example:s1:{home}/s1.private\n")
    (home / "signed").write_text("* s1\n")
    settings.write_text(
        lines("signing.md", "opendkim.conf", {"8892": str(port)})
        + f"KeyTable {home}/keys\nSigningTable refile:{home}/signed\nRequireSafeKeys no\nInternalHosts 127.0.0.1\n"
    )
    with program_at(port, [program, "-f", "-x", str(settings)]):
        yield port, record((home / "s1.txt").read_text())


# Debian's rspamd.conf without its spam rules, which take most of a minute to compile and ask the world by DNS.
RSPAMD = """\
options {{
  filters = "dkim";
  pidfile = "{home}/pid";
  control_socket = "{home}/control mode=0600";
  hs_cache_dir = "{home}";
  url_tld = "{home}/tld";
  dns {{ nameserver = ["127.0.0.1:{nowhere}"]; }}
}}
logging {{ type = "console"; level = "info"; }}
worker "rspamd_proxy" {{
  .include "/etc/rspamd/worker-proxy.inc"
  .include(duplicate=merge) "{home}/worker-proxy.inc"
}}
modules {{ path = "/usr/share/rspamd/plugins/dkim_signing.lua"; }}
.include "/etc/rspamd/modules.d/dkim_signing.conf"
dkim_signing {{ .include(duplicate=merge) "{home}/dkim_signing.conf" }}
"""


@contextmanager
def rspamd(home: Path) -> Iterator[tuple[int, bytes]]:
    program, admin = need_program("rspamd", "rspamd"), need_program("rspamadm", "rspamd")
    port = free_port()
    key = [
        admin,
        "dkim_keygen",
        "-d",
        "acme.example",
        "-s",
        "s1",
        "-b",
        "2048",
        "-k",
        home / "acme.example.s1.key",
    ]
    made = subprocess.run(key, check=True, capture_output=True, text=True)
    ours = {"127.0.0.1:11332": f"127.0.0.1:{port}", "/var/lib/rspamd/dkim": str(home)}
    for name in ("worker-proxy.inc", "dkim_signing.conf"):
        (home / name).write_text(lines("signing.md", f"local.d/{name}", ours))
    (home / "tld").write_text("example\n")
    (home / "rspamd.conf").write_text(RSPAMD.format(home=home, nowhere=free_port()))
    with program_at(port, [program, "-f", "-i", "-c", str(home / "rspamd.conf")]):
        yield port, record(made.stdout)


@contextmanager
def program_at(port: int, call: list[str]) -> Iterator[None]:
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(call, stdout=output, stderr=output)
        try:
            wait_for(port, 30)
            yield
        except BaseException:
            output.seek(0)
            print(output.read().decode(errors="replace")[-5000:])
            raise
        finally:
            process.terminate()
            process.wait(timeout=20)


def record(zone: str) -> bytes:
    """The text of the TXT record in a zone file's line."""
    return "".join(re.findall(r'"([^"]*)"', zone)).encode()
