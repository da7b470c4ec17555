"""A converter taken over by an image can compute and nothing else: as root, as anybody, whatever kernels lack."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from brandproxy.storage import confine, variants
from brandproxy.storage.variants import Variants, confined

# What somebody would try who had taken the converter over. Printed are the results and errors.
HOSTILE = """
def prepare():
    global ctypes, json, mmap, os, signal, socket, sys
    import ctypes, json, mmap, os, signal, socket, sys

def raw(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "raw")
    return "done"

def main(arguments):
    key, folder = arguments
    attempts = {
        "read": lambda: open(key).read(), "list": lambda: os.listdir(folder), "write": lambda: open(folder + "/x", "w"),
        "remove": lambda: os.unlink(key), "change": lambda: os.chmod(key, 0o777), "etc": lambda: open("/etc/passwd"),
        "tcp": lambda: socket.socket(), "udp": lambda: socket.socket(type=socket.SOCK_DGRAM),
        "unix": lambda: socket.socket(socket.AF_UNIX), "pair": socket.socketpair, "netlink": lambda: socket.socket(16, 3),
        "fork": os.fork, "exec": lambda: os.execv(sys.executable, [sys.executable, "-c", "print(1)"]),
        "parent": lambda: open(f"/proc/{os.getppid()}/environ").read(), "self": lambda: open("/proc/self/environ").read(),
        "kill": lambda: os.kill(os.getppid(), signal.SIGTERM), "root": lambda: os.setuid(0), "pipe": os.pipe,
        "memory": lambda: bytearray(2 << 30), "memfd": lambda: os.memfd_create("x"), "duplicate": lambda: os.dup(0),
        "uring": lambda: raw(425, 1, None), "openat2": lambda: raw(437, -100, key.encode(), None, 0),
        "ptrace": lambda: raw(101 if os.uname().machine == "x86_64" else 117, 16, os.getppid(), 0, 0),
    }
    told = {"environment": dict(os.environ), "arguments": arguments[2:]}
    for name, attempt in attempts.items():
        try:
            told[name] = repr(attempt())
        except BaseException as error:
            told[name] = error
    text = {name: f"refused {type(one).__name__}" if isinstance(one, BaseException) else one for name, one in told.items()}
    sys.stdout.write(json.dumps(text))
    sys.stdout.flush()
    return 0
"""  # noqa: E501 - a program

LAYERS = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("confine", sys.argv[2])
confine = importlib.util.module_from_spec(spec)
spec.loader.exec_module(confine)
off = sys.argv[1]
if off != "all":
    setattr(confine, off, lambda libc: [off + ": switched off"])
sys.argv[1:] = sys.argv[3:]
sys.exit(confine.main())
"""

USERS = ["me", "nobody"] if os.geteuid() == 0 else ["me"]


def hostile(folder: Path, user: str, without: str = "all") -> tuple[dict[str, object], str]:
    (folder / "hostile.py").write_text(HOSTILE)
    data = folder / "data"
    data.mkdir()
    (data / "master.key").write_text("the operator's key")
    for one in (folder, data):
        one.chmod(0o777)  # whoever it becomes, the file system itself would let it in
    for parent in list(folder.parents)[:-2]:  # pytest's own below the system's temporary folder
        parent.chmod(parent.stat().st_mode | 0o055)
    command = [sys.executable, "-I", "-c", LAYERS, without, confine.__file__, str(folder / "hostile.py")]
    done = subprocess.run(
        [*command, str(data / "master.key"), str(data)],
        input=b"", capture_output=True, env={}, timeout=30, check=True,
        user=65534 if user == "nobody" else None, extra_groups=[] if user == "nobody" else None,
    )  # fmt: skip
    assert (data / "master.key").read_text() == "the operator's key"
    assert sorted(path.name for path in data.iterdir()) == ["master.key"]
    return json.loads(done.stdout), done.stderr.decode()


@pytest.mark.parametrize("user", USERS)
def test_hostile_code_reads_writes_sends_and_starts_nothing(tmp_path: Path, user: str) -> None:
    told, lacking = hostile(tmp_path, user)
    environment = told.pop("environment")
    assert set(environment) <= {"LC_CTYPE"}  # type: ignore[call-overload] - the interpreter's own
    assert told.pop("arguments") == []
    assert {name: how for name, how in told.items() if not str(how).startswith("refused")} == {}
    assert lacking == ""


@pytest.mark.parametrize("without", ["_seccomp", "_landlock"])
@pytest.mark.parametrize("user", USERS)
def test_what_a_kernel_lacks_is_told_and_the_rest_holds(tmp_path: Path, user: str, without: str) -> None:
    told, lacking = hostile(tmp_path, user, without)
    vital = ["read", "list", "write", "etc", "tcp", "udp", "unix", "fork", "parent", "self", "root", "memory"]
    assert {name: told[name] for name in vital if not str(told[name]).startswith("refused")} == {}
    assert lacking == f"{without}: switched off\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_root_becomes_nobody_for_good() -> None:
    script = (
        "import importlib.util, os, sys\n"
        f"spec = importlib.util.spec_from_file_location('confine', {confine.__file__!r})\n"
        "confine = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(confine)\n"
        "confine._seccomp = lambda libc: []\n"  # it would hide who we are
        "print(confine.confine(), os.getresuid(), os.getresgid(), os.getgroups())"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"[] (65534, 65534, 65534) (65534, 65534, 65534) []"


@pytest.mark.parametrize("name", ["x86_64", "aarch64"])
def test_the_lists_of_system_calls_name_the_same_calls(name: str) -> None:
    _, calls = confine._CALLS[name]
    assert len(calls) == len(set(calls)) == 26
    assert platform.machine() in confine._CALLS


async def test_the_converter_sees_neither_keys_nor_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRANDPROXY_MASTER_KEY", "s3cret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    (tmp_path / "hostile.py").write_text(HOSTILE)
    out, lacking = await confined(str(tmp_path / "hostile.py"), (str(tmp_path / "x"), str(tmp_path)), b"")
    assert out is not None
    assert b"s3cret" not in out
    assert lacking == ""


@pytest.mark.parametrize(
    "body",
    ["sys.stdout.buffer.write(b'svg+xml\\n<svg onload=alert(1)>')", "sys.stdout.buffer.write(b'png\\r\\nx: y\\n')",
     "sys.stdout.buffer.write(b'webp\\n')", "sys.stderr.write('x' * 100000)", "bytearray(2 << 30)", "sys.exit(1)",
     "[sys.stdout.buffer.write(b'png\\n' * 65536) for _ in iter(int, 1)]"],
)  # fmt: skip
async def test_what_a_converter_says_is_believed_no_further_than_an_image_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"import sys\ndef prepare(): pass\ndef main(arguments):\n    {body}\n    return 0\n")
    monkeypatch.setattr(variants, "_PROGRAM", str(program))
    assert await Variants(1)._convert(b"image", "w100-png") is None
