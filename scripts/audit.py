"""Compare the packages of lock files with the list of known vulnerabilities, by pip-audit.

python scripts/audit.py requirements.lock requirements-dev.lock

Prints a line a file and one for each vulnerability, and exits with 1 if there is one. What could not be compared, as
without a network, is no failure, but said: pip-audit itself would call it free of known vulnerabilities.
"""

import json
import re
import subprocess
import sys

UNREACHABLE = r"ConnectionError|ProxyError|SSLError|Timeout"  # of requests, or what pip-audit makes of them
SHOWN = 3  # names in a line


def audit(lock: str, options: list[str]) -> bool:
    """Say what is known of the packages in a lock file, and tell whether that is no reason to stop.

    Args:
        lock: Path of the file.
        options: Further ones of pip-audit.
    """
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
        return offline
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, known) for package in packages for known in package.get("vulns", [])]
    for package, known in found:
        names = ", ".join([known["id"], *known.get("aliases", [])])
        fixed = ", ".join(known["fix_versions"]) or "no version yet"
        print(f"{lock}: {package['name']} {package['version']} is vulnerable: {names}; fixed in {fixed}")
    what = f"{lock}: packages compared: {len(packages) - len(skipped)}, known vulnerabilities: {len(found)}"
    if skipped:
        some = ", ".join(skipped[:SHOWN]) + (", ..." if len(skipped) > SHOWN else "")
        what += f"; not compared: {len(skipped)}, which the service does not know ({some})"
    print(what)
    return not found


if __name__ == "__main__":
    files = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    asked = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    failed = [file for file in files if not audit(file, asked)]
    sys.exit(bool(failed))
