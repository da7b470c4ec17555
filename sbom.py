"""What the image holds, as CycloneDX 1.5 on stdout: Python packages of the running interpreter, Debian's packages.

Run by the Dockerfile, where the base image and the environment are at hand; needs the standard library only.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import distributions
from pathlib import Path

Component = dict[str, object]


def python_packages() -> Iterator[Component]:
    for found in distributions():
        name, version = found.metadata["Name"], found.version
        purl = f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{version}"
        yield component(name, version, purl, found.metadata.get("License-Expression"))


def debian_packages(status: Path = Path("/var/lib/dpkg/status")) -> Iterator[Component]:
    for paragraph in status.read_text().split("\n\n") if status.exists() else ():
        fields = HeaderParser().parsestr(paragraph)
        if "installed" in fields.get("Status", "").split():
            name, version = fields["Package"], fields["Version"]
            yield component(name, version, f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}")


def component(name: str, version: str, purl: str, licence: str | None = None) -> Component:
    known = {"licenses": [{"expression": licence}]} if licence else {}
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, **known}


def main() -> None:
    version = re.search(r'__version__ = "(.*)"', Path("brandproxy/__init__.py").read_text())
    assert version
    listed = {str(one["purl"]): one for one in (*python_packages(), *debian_packages())}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "brandproxy",
                "name": "brandproxy",
                "version": version[1],
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": [listed[purl] for purl in sorted(listed)],
    }
    json.dump(bill, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
