"""The project's image built and run for real, offline: a base from Debian's packages, buildah without a daemon,
and a container made of the kernel's own parts (namespaces, a read-only root, another user, no new privileges).

No registry is asked: `debootstrap` makes the base, pip's wheels are fetched by the build host and put into the
build context. Needs root, buildah and debootstrap.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
USER = 10001
_COPIED = (
    "Dockerfile",
    ".dockerignore",
    "requirements-server.lock",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "sbom.py",
)
_NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/man", "usr/share/locale")


def run(*command: str | Path, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


@dataclass
class Builder:
    """buildah with a storage of its own under `folder`."""

    folder: Path

    def __call__(self, *command: str | Path) -> str:
        places = ("--root", self.folder / "storage", "--runroot", self.folder / "run", "--storage-driver", "vfs")
        # Build steps share the host's network in this isolation; a name space without any takes it away.
        return run("unshare", "--net", "buildah", *places, *command).strip()

    def base(self) -> str:
        """A small Debian with Python, as Debian's packages make it."""
        tree, suite = self.folder / "base", platform.freedesktop_os_release()["VERSION_CODENAME"]
        run("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", suite, tree)
        for name in _NOT_NEEDED:
            shutil.rmtree(tree / name)
            (tree / name).mkdir()
        for path in (tree / "usr/share/doc").rglob("*"):
            if path.is_file() and path.name != "copyright":
                path.unlink()
        container = self("from", "scratch")
        self("add", "-q", container, tree, "/")
        self("commit", "-q", "--rm", container, "localhost/base")
        shutil.rmtree(tree)
        return "localhost/base"

    def build(self, base: str, *options: str) -> str:
        context = self.folder / "context"
        context.mkdir()
        for name in _COPIED:
            shutil.copy(ROOT / name, context)
        shutil.copytree(ROOT / "brandproxy", context / "brandproxy")
        wanted = ("--only-binary", ":all:", "--require-hashes", "-r", ROOT / "requirements-server.lock")
        run(sys.executable, "-m", "pip", "download", "-q", *wanted, "-d", context / "wheels")
        self(
            "build", "--isolation", "chroot", "--format", "docker", "--build-arg", f"BASE={base}", *options,
            "-t", "localhost/brandproxy", context,
        )  # fmt: skip
        return "localhost/brandproxy"

    def config(self, image: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))["Docker"]
        return found

    def tree(self, image: str) -> Path:
        """The image's root file system, as a folder."""
        return Path(self("mount", self("from", "--pull-never", image)))


@dataclass
class Container:
    """One process of the image, as Kubernetes runs it under k8s/: user 10001, the root read-only, /data and /tmp
    the only places to write, no new privileges, processes and network of its own."""

    tree: Path
    config: dict[str, Any]
    data: Path
    environment: dict[str, str] = field(default_factory=dict)
    shell: psutil.Process | None = None

    @contextmanager
    def running(self, *args: str) -> Iterator[Container]:
        t = self.tree
        mounts = (
            f"mount --bind {t} {t} && mount -o remount,bind,ro {t} && mount --bind {self.data} {t}/data"
            f" && mount -t tmpfs -o mode=1777,size=64m tmpfs {t}/tmp && mount -t proc proc {t}/proc"
            f" && mount --rbind /dev {t}/dev && ip link set lo up"
        )
        given = [*self.config["Env"], *(f"{name}={value}" for name, value in self.environment.items())]
        command = ["env", "-i", *given, *self.config["Entrypoint"], *(args or self.config["Cmd"])]
        enter = ["setpriv", "--no-new-privs", "chroot", f"--userspec={USER}:{USER}", "--groups=", str(t), *command]
        isolated = ["unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]
        with (self.data.parent / "log").open("ab") as log:
            child = psutil.Popen(
                [*isolated, "sh", "-c", f'{mounts} && exec "$@"', "sh", *enter], stdout=log, stderr=log
            )
        self.shell = child
        try:
            yield self
        finally:
            if child.poll() is None:
                child.kill()
            child.wait(20)

    @property
    def main(self) -> psutil.Process:
        """The image's process, number 1 inside."""
        assert self.shell is not None
        return self.shell.children()[0]

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as `docker exec` does."""
        who = ("-S", str(USER), "-G", str(USER))
        enter = ["nsenter", "-t", str(self.main.pid), "-m", "-n", "-p", "-r", "-w", *who]
        given = ["env", "-i", *self.config["Env"]]
        return subprocess.run([*enter, *given, *command], capture_output=True, text=True, timeout=30)

    def healthy(self) -> bool:
        """What the engine asks every few seconds."""
        kind, *command = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        try:
            return self.inside(*command).returncode == 0
        except (IndexError, psutil.Error):
            return False

    def stop(self) -> int:
        """The signal the image asks for; the exit status of its process."""
        assert self.shell is not None
        os.kill(self.main.pid, getattr(signal, self.config["StopSignal"]))
        return int(self.shell.wait(20))

    def log(self) -> str:
        return (self.data.parent / "log").read_text()
