"""Compare the packages of lock files with known vulnerabilities, using pip-audit.

python scripts/audit.py requirements.lock requirements-dev.lock

Prints one line per file and one per vulnerability, and exits with 1 if there is any. Packages that cannot be compared,
for example without a network, are reported but do not fail; pip-audit itself would report no vulnerabilities. Versions
in ``KNOWN_BAD`` fail with and without a network.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

# (package, versions, identifiers, reason) of vulnerabilities that untrusted files could exploit in this project;
# sources: the packages' own advisories and https://pillow.readthedocs.io/en/stable/releasenotes/13.0.0.html
KNOWN_BAD = [
    ("lightning", "<2.6.6", "CVE-2026-58659", "load_from_checkpoint executes code that hyperparameters name"),
    ("lightning", ">=2.6.2,<=2.6.3", "GHSA-w37p-236h-pfx3", "malicious upload that steals credentials"),
    ("pytorch-lightning", "<2.6.6", "CVE-2026-58659", "load_from_checkpoint executes code that hyperparameters name"),
    ("torch", "<2.6", "CVE-2025-32434", "torch.load executes code in spite of weights_only"),
    ("torch", "<2.10", "CVE-2026-24747", "torch.load corrupts memory in spite of weights_only"),
    ("pillow", "<13", "CVE-2026-96639, GHSA-5x8w-8jj5-q52h", "crafted images corrupt memory"),
    ("filelock", "<3.20.3", "CVE-2025-68146, CVE-2026-22701", "a link instead of a lock truncates another file"),
]
UNREACHABLE = r"ConnectionError|ProxyError|SSLError|Timeout"  # exceptions of requests, or as pip-audit reports them
SHOWN = 3  # names per line


def audit(lock: str, options: list[str]) -> bool:
    """Print the known vulnerabilities of the packages in a lock file, and return whether the check passes.

    Args:
        lock: Path of the file.
        options: Further options of pip-audit.
    """
    known_bad = find_known_bad(lock)
    for problem in known_bad:
        print(f"{lock}: {problem}")
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", *options]
    process = subprocess.run(
        [*command, "--disable-pip", "--require-hashes", "--requirement", lock],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(process.stdout)["dependencies"]
    except json.JSONDecodeError:  # pip-audit failed
        reason = (process.stderr.strip().splitlines() or ["no output"])[-1][:300]
        offline = re.search(UNREACHABLE, reason) is not None
        why = f"there is no network ({reason.partition(':')[0]})" if offline else f"pip-audit fails: {reason}"
        print(f"{lock}: not compared with known vulnerabilities, because {why}")
        return offline and not known_bad
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    vulnerable = [(package, known) for package in packages for known in package.get("vulns", [])]
    for package, known in vulnerable:
        names = ", ".join([known["id"], *known.get("aliases", [])])
        fixed = ", ".join(known["fix_versions"]) or "no version yet"
        print(f"{lock}: {package['name']} {package['version']} is vulnerable: {names}; fixed in {fixed}")
    count = len(vulnerable) + len(known_bad)
    summary = f"{lock}: packages compared: {len(packages) - len(skipped)}, known vulnerabilities: {count}"
    if skipped:
        some = ", ".join(skipped[:SHOWN]) + (", ..." if len(skipped) > SHOWN else "")
        summary += f"; not compared: {len(skipped)}, unknown to the service ({some})"
    print(summary)
    return not vulnerable and not known_bad


def find_known_bad(lock: str) -> list[str]:
    """Return a line for each package in a lock file whose version is in ``KNOWN_BAD``; none if the file is missing."""
    text = Path(lock).read_text() if Path(lock).is_file() else ""
    return [
        f"{name} {version} is vulnerable: {identifiers}: {reason}"
        for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
        for package, versions, identifiers, reason in KNOWN_BAD
        if canonicalize_name(name) == package and SpecifierSet(versions).contains(version, prereleases=True)
    ]


if __name__ == "__main__":
    files = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    failed = [file for file in files if not audit(file, options)]
    sys.exit(bool(failed))
