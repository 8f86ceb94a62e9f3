"""The state of this code, as git tells it: the commit, and what is not in it."""

import os
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

CODE = Path(__file__).parents[2]
MOST_UNTRACKED = 100  # files; more are no code


def read_code() -> tuple[dict[str, Any] | None, bytes]:
    """Return the facts that tell this code from another, and its uncommitted changes for ``git apply``.

    Modules that git does not track yet are among the changes. A copy of the files, or a machine without git, has none.
    """
    try:
        commit = _git("rev-parse", "HEAD").decode().strip()
        diff = _git("diff", "--binary", "--relative", "HEAD")
        found = _git("ls-files", "-z", "--others", "--exclude-standard").split(b"\0")
        untracked = [os.fsdecode(name) for name in found if name][:MOST_UNTRACKED]
        new = [name for name in untracked if name.endswith(".py")]
        diff += b"".join(_git("diff", "--binary", "--no-index", "/dev/null", name) for name in new)
    except (OSError, subprocess.SubprocessError):
        return None, b""
    facts = {"commit": commit, "dirty": bool(diff or untracked), "untracked": untracked}
    return facts | ({"diff_sha256": sha256(diff).hexdigest()} if diff else {}), diff


def _git(*args: str) -> bytes:
    done = subprocess.run(["git", "-C", str(CODE), *args], capture_output=True, timeout=10)
    if done.returncode > 1:  # 1 is of --no-index, for files that differ
        done.check_returncode()
    return done.stdout
