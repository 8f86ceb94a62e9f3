import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datamodules import DataError
from datamodules.preparation.download import download

CONTENT = b"pixels" * 1000


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Serve a file on the loopback interface."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served/file.tar.gz").write_bytes(CONTENT)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/file.tar.gz"
        server.shutdown()


def test_file_arrives_whole(tmp_path: Path, url: str) -> None:
    download(url, tmp_path / "data/file.tar.gz", hashlib.md5(CONTENT).hexdigest())
    assert (tmp_path / "data/file.tar.gz").read_bytes() == CONTENT
    assert len(list((tmp_path / "data").iterdir())) == 1


def test_file_with_the_wrong_checksum_is_thrown_away(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="Expected MD5 0000 of"):
        download(url, tmp_path / "data/file.tar.gz", "0000")
    assert list((tmp_path / "data").iterdir()) == []


def test_failure_is_named_with_the_reason(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match=r"download of .*/gone failed: File not found"):
        download(f"{url}/gone", tmp_path / "file.tar.gz", "0000")
    with pytest.raises(DataError, match=r"download of http://127\.0\.0\.1:9/x failed: .*refused"):
        download("http://127.0.0.1:9/x", tmp_path / "file.tar.gz", "0000")
