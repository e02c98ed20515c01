"""Contents of the packages, for people and scanners: ``python packaging/bill.py SITE DOC SBOM``.

Writes the licences of all vendored libraries and a `copyright` file into DOC, and a CycloneDX
bill of materials to SBOM. The same input gives the same bytes.
"""

from __future__ import annotations

import email.message
import json
import shutil
import sys
from pathlib import Path

from vendor import licences, metadata

_COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: vllmwall

Files: *
Copyright: 2026 the authors of vllmwall
License: Apache-2.0
 On Debian systems the whole text is in /usr/share/common-licenses/Apache-2.0.
"""


def write_all(site: Path, doc: Path, sbom: Path, version: str) -> None:
    """Write all three. Raises OSError, and LookupError for a library without a licence."""
    copyrights, components = [_COPYRIGHT], []
    for info, said in metadata(site):
        name, its_version = said["Name"], said["Version"]
        files = licences(info)
        if not files:
            raise LookupError(f"{name} {its_version} brings no licence text")
        folder = doc / "licenses" / f"{name}-{its_version}"
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, folder / file.name)
        copyrights.append(_paragraph(said, folder.name))
        components.append(_component(said))
    (doc / "copyright").write_text("\n".join(copyrights), encoding="utf-8")
    sbom.write_text(json.dumps(_bill(components, version), indent=1) + "\n")


def licence(said: email.message.Message) -> str:
    """The licence as the library gives it: an SPDX expression where it has one."""
    classified = [one for one in said.get_all("Classifier", []) if one.startswith("License ::")]
    short = (said["License"] or "").strip()
    named = said["License-Expression"] or (short if "\n" not in short else "")
    return named or ", ".join(one.rpartition(" :: ")[2] for one in classified) or "see its text"


def _paragraph(said: email.message.Message, folder: str) -> str:
    author = said["Author-email"] or said["Author"] or f"the authors of {said['Name']}"
    where = f"/usr/share/doc/vllmwall/licenses/{folder}"
    return (
        f"Files: usr/lib/vllmwall/site/{said['Name'].replace('-', '_')}*\n"
        f"Copyright: {' '.join(author.split())}\n"
        f"License: {licence(said).replace(' ', '-')}\n The whole text is in {where}.\n"
    )


def _component(said: email.message.Message) -> dict[str, object]:
    name, version = str(said["Name"]), str(said["Version"])
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"name": licence(said)}}],
    }


def _bill(components: list[dict[str, object]], version: str) -> dict[str, object]:
    itself = {"type": "application", "bom-ref": "vllmwall", "name": "vllmwall", "version": version}
    below = [str(one["bom-ref"]) for one in components]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**itself, "licenses": [{"license": {"id": "Apache-2.0"}}]}},
        "components": components,
        "dependencies": [{"ref": "vllmwall", "dependsOn": below}],
    }


if __name__ == "__main__":
    write_all(*map(Path, sys.argv[1:4]), sys.argv[4])
