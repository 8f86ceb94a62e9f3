"""Compare the packages of lock files with the list of known vulnerabilities, by pip-audit.

python scripts/audit.py requirements.lock requirements-dev.lock

Prints a line a file and one for each vulnerability, and exits with 1 if there is one. What could not be compared, as
without a network, is no failure, but said: pip-audit itself would call it free of known vulnerabilities. Versions in
``KNOWN_BAD`` fail with and without a network.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

# (package, versions, identifiers, reason): what files from strangers could exploit in this project; sources: the
# packages' own advisories and https://pillow.readthedocs.io/en/stable/releasenotes/13.0.0.html
KNOWN_BAD = [
    ("lightning", "<2.6.6", "CVE-2026-58659", "load_from_checkpoint runs what hyperparameters name"),
    ("lightning", ">=2.6.2,<=2.6.3", "GHSA-w37p-236h-pfx3", "malicious upload that steals credentials"),
    ("pytorch-lightning", "<2.6.6", "CVE-2026-58659", "load_from_checkpoint runs what hyperparameters name"),
    ("torch", "<2.6", "CVE-2025-32434", "torch.load runs code in spite of weights_only"),
    ("torch", "<2.10", "CVE-2026-24747", "torch.load corrupts memory in spite of weights_only"),
    ("pillow", "<13", "CVE-2026-96639, GHSA-5x8w-8jj5-q52h", "crafted images corrupt memory"),
    ("filelock", "<3.20.3", "CVE-2025-68146, CVE-2026-22701", "a link in place of a lock truncates another file"),
]
UNREACHABLE = r"ConnectionError|ProxyError|SSLError|Timeout"  # of requests, or what pip-audit makes of them
SHOWN = 3  # names in a line


def audit(lock: str, options: list[str]) -> bool:
    """Say what is known of the packages in a lock file, and tell whether that is no reason to stop.

    Args:
        lock: Path of the file.
        options: Further ones of pip-audit.
    """
    known_bad = find_known_bad(lock)
    for problem in known_bad:
        print(f"{lock}: {problem}")
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", *options]
    done = subprocess.run(
        [*command, "--disable-pip", "--require-hashes", "--requirement", lock],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except json.JSONDecodeError:  # it broke off
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
        offline = re.search(UNREACHABLE, reason) is not None
        why = f"for want of a network ({reason.partition(':')[0]})" if offline else f"because pip-audit fails: {reason}"
        print(f"{lock}: not compared with known vulnerabilities, {why}")
        return offline and not known_bad
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, known) for package in packages for known in package.get("vulns", [])]
    for package, known in found:
        names = ", ".join([known["id"], *known.get("aliases", [])])
        fixed = ", ".join(known["fix_versions"]) or "no version yet"
        print(f"{lock}: {package['name']} {package['version']} is vulnerable: {names}; fixed in {fixed}")
    count = len(found) + len(known_bad)
    what = f"{lock}: packages compared: {len(packages) - len(skipped)}, known vulnerabilities: {count}"
    if skipped:
        some = ", ".join(skipped[:SHOWN]) + (", ..." if len(skipped) > SHOWN else "")
        what += f"; not compared: {len(skipped)}, which the service does not know ({some})"
    print(what)
    return not found and not known_bad


def find_known_bad(lock: str) -> list[str]:
    """Return a line for each package in a lock file whose version is in ``KNOWN_BAD``; nothing if there is no file."""
    text = Path(lock).read_text() if Path(lock).is_file() else ""
    return [
        f"{name} {version} is vulnerable: {identifiers}: {reason}"
        for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
        for package, versions, identifiers, reason in KNOWN_BAD
        if canonicalize_name(name) == package and SpecifierSet(versions).contains(version, prereleases=True)
    ]


if __name__ == "__main__":
    files = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    asked = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    failed = [file for file in files if not audit(file, asked)]
    sys.exit(bool(failed))
