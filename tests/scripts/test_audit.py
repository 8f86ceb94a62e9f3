import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from audit import audit

pytestmark = pytest.mark.slow  # each test runs pip-audit
NOWHERE = "http://127.0.0.1:9"
HASH = f"--hash=sha256:{0:064d}"
FIXED = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}]
AFFECTED = [{"package": {"name": "old", "ecosystem": "PyPI"}, "ranges": FIXED}]
KNOWN = {"id": "GHSA-test", "aliases": ["CVE-2000-1"], "summary": "It is made up.", "affected": AFFECTED}


class Knows(BaseHTTPRequestHandler):
    """Responds like osv.dev, with one vulnerable package."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"vulns": [KNOWN]} if query["package"]["name"] == "old" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """Serve on the loopback interface, and yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Knows) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def check(tmp_path: Path, service: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[bool, list[str]]]:
    """Return a function that audits a lock file, and returns whether it passes and the lines after its name."""

    def check(content: str | None, address: str = service) -> tuple[bool, list[str]]:
        lock = tmp_path / "a.lock"
        if content is not None:
            lock.write_text(content)
        passed = audit(str(lock), ["--vulnerability-service=osv", f"--osv-url={address}"])
        return passed, [line.removeprefix(f"{lock}: ") for line in capsys.readouterr().out.splitlines()]

    return check


def test_vulnerable_package_is_named_and_fails(check: Callable) -> None:
    vulnerable = "old 1.0 is vulnerable: CVE-2000-1, GHSA-test; fixed in 2.0"
    assert check(f"new==1.0 {HASH}\nold==1.0 {HASH}\n") == (
        False,
        [vulnerable, "packages compared: 2, known vulnerabilities: 1"],
    )
    assert check(f"new==1.0 {HASH}\n") == (True, ["packages compared: 1, known vulnerabilities: 0"])


def test_without_a_network_nothing_fails_and_nothing_is_claimed(check: Callable) -> None:
    passed, (line,) = check(f"new==1.0 {HASH}\n", NOWHERE)
    assert passed
    assert line.startswith("not compared with known vulnerabilities, because there is no network (")


@pytest.mark.parametrize("reachable", [True, False])
def test_known_bad_version_fails_with_and_without_the_service(reachable: bool, check: Callable, service: str) -> None:
    pins = ["Lightning==2.6.3", "torch==2.5.1+cpu", "pillow==13.0.0"]
    passed, lines = check("".join(f"{pin} {HASH}\n" for pin in pins), service if reachable else NOWHERE)
    assert not passed
    found = {"Lightning 2.6.3": ["CVE-2026-58659", "GHSA-w37p-236h-pfx3"]}
    found |= {"torch 2.5.1+cpu": ["CVE-2025-32434", "CVE-2026-24747"]}
    expected = [[f"{package} is vulnerable", known] for package, names in found.items() for known in names]
    assert [line.split(": ")[:2] for line in lines[:-1]] == expected
    assert ("known vulnerabilities: 4" if reachable else "not compared") in lines[-1]


@pytest.mark.parametrize("content", [None, "new==1.0\n"], ids=["missing", "without a hash"])
def test_invalid_lock_file_fails(content: str | None, check: Callable) -> None:
    passed, (line,) = check(content)
    assert not passed
    assert "because pip-audit fails: ERROR" in line
