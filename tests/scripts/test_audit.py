import json
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

audit = runpy.run_path("scripts/audit.py")["audit"]
HASH = f"--hash=sha256:{0:064d}"
KNOWN = {
    "id": "GHSA-test",
    "aliases": ["CVE-2000-1"],
    "summary": "It is made up.",
    "affected": [
        {
            "package": {"name": "old", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


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
def service() -> Iterator[list[str]]:
    """Serve on the loopback interface, and yield the options with which pip-audit uses this service."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Knows) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ["--vulnerability-service=osv", f"--osv-url=http://127.0.0.1:{server.server_port}"]
        server.shutdown()


def test_vulnerable_package_is_named_and_fails(
    tmp_path: Path, service: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.lock").write_text(f"new==1.0 {HASH}\nold==1.0 {HASH}\n")
    assert not audit(str(tmp_path / "a.lock"), service)
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/a.lock: old 1.0 is vulnerable: CVE-2000-1, GHSA-test; fixed in 2.0",
        f"{tmp_path}/a.lock: packages compared: 2, known vulnerabilities: 1",
    ]


def test_packages_without_known_vulnerabilities_pass(
    tmp_path: Path, service: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.lock").write_text(f"new==1.0 {HASH}\n")
    assert audit(str(tmp_path / "a.lock"), service)
    assert capsys.readouterr().out == f"{tmp_path}/a.lock: packages compared: 1, known vulnerabilities: 0\n"


def test_without_a_network_nothing_fails_and_nothing_is_claimed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.lock").write_text(f"new==1.0 {HASH}\n")
    assert audit(str(tmp_path / "a.lock"), ["--vulnerability-service=osv", "--osv-url=http://127.0.0.1:9"])
    out = capsys.readouterr().out
    assert out.startswith(f"{tmp_path}/a.lock: not compared with known vulnerabilities, because there is no network (")
    assert out.count("\n") == 1


@pytest.mark.parametrize("reachable", [True, False])
def test_known_bad_version_fails_with_and_without_the_service(
    reachable: bool, tmp_path: Path, service: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pins = ["Lightning==2.6.3", "torch==2.5.1+cpu", "pillow==13.0.0"]
    (tmp_path / "a.lock").write_text("".join(f"{pin} {HASH}\n" for pin in pins))
    options = service if reachable else ["--vulnerability-service=osv", "--osv-url=http://127.0.0.1:9"]
    assert not audit(str(tmp_path / "a.lock"), options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1:3] for line in lines[:-1]] == [
        ["Lightning 2.6.3 is vulnerable", "CVE-2026-58659"],
        ["Lightning 2.6.3 is vulnerable", "GHSA-w37p-236h-pfx3"],
        ["torch 2.5.1+cpu is vulnerable", "CVE-2025-32434"],
        ["torch 2.5.1+cpu is vulnerable", "CVE-2026-24747"],
    ]
    assert ("known vulnerabilities: 4" if reachable else "not compared") in lines[-1]


@pytest.mark.parametrize("content", [None, "new>=1.0\n", "new==1.0\n"], ids=["missing", "not pinned", "without a hash"])
def test_invalid_lock_file_fails(
    content: str | None, tmp_path: Path, service: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "a.lock").write_text(content)
    assert not audit(str(tmp_path / "a.lock"), service)
    assert "because pip-audit fails: ERROR" in capsys.readouterr().out
