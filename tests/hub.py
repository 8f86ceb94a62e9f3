"""A server on loopback in place of the sites that publish weights, and caches in a temporary directory."""

import hashlib
import http.server
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from torch import nn


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve files by path; yield the address, and a list of the requests so far, such as "GET /net.pth"."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            requests.append(f"{self.command} {self.path}")
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            body = content or b""
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", hashlib.sha256(body).hexdigest())
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


def use_caches(monkeypatch: pytest.MonkeyPatch, folder: Path, address: str) -> Path:
    """Read and write caches below a folder, and the Hugging Face Hub at an address; return torch's checkpoints."""
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hf"))
    return folder / "torch/hub/checkpoints"


def publish(monkeypatch: pytest.MonkeyPatch, weights: Any, network: nn.Module, address: str = "") -> tuple[str, bytes]:
    """Give weights of torchvision the content of a network at an address; return the name and content of the file."""
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    name = f"net-{hashlib.sha256(file.getvalue()).hexdigest()[:8]}.pth"
    monkeypatch.setattr(weights.value, "url", f"{address}/{name}")
    return name, file.getvalue()
