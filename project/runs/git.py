"""Read the git commit and uncommitted changes of this project."""

import os
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

CODE = Path(__file__).parents[2]
MOST_UNTRACKED = 100  # files; more are unlikely to be code


def read_code() -> tuple[dict[str, Any] | None, bytes]:
    """Return the commit and its state, and the uncommitted changes as a patch for ``git apply``.

    The patch includes untracked Python files. Without git or a repository, returns ``(None, b"")``.
    """
    try:
        commit = _git("rev-parse", "HEAD").decode().strip()
        diff = _git("diff", "--binary", "--relative", "HEAD")
        names = _git("ls-files", "-z", "--others", "--exclude-standard").split(b"\0")
        untracked = [os.fsdecode(name) for name in names if name][:MOST_UNTRACKED]
        new = [name for name in untracked if name.endswith(".py")]
        diff += b"".join(_git("diff", "--binary", "--no-index", "/dev/null", name) for name in new)
    except (OSError, subprocess.SubprocessError):
        return None, b""
    facts = {"commit": commit, "dirty": bool(diff or untracked), "untracked": untracked}
    return facts | ({"diff_sha256": sha256(diff).hexdigest()} if diff else {}), diff


def _git(*args: str) -> bytes:
    process = subprocess.run(["git", "-C", str(CODE), *args], capture_output=True, timeout=10)
    if process.returncode > 1:  # `git diff --no-index` returns 1 if files differ
        process.check_returncode()
    return process.stdout
