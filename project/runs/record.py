"""Read and write ``run.json``: command line, versions, hardware and final state of a run. Imports no torch.

A process that trains holds a lock on its run directory, which the operating system releases when the process exits. A
run whose state is "running" but whose lock is free was killed.
"""

import json
import os
import platform
import re
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout, lock_descriptor

from atomic_files import write_atomically
from project.errors import RunError
from project.runs.git import read_code

FILE, LOCK = "run.json", ".lock"
ENVIRONMENT = ("git", "versions", "hardware")  # fields that may differ between starts of a run
PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "jsonargparse", "numpy", "pillow")

_locks: dict[Path, BaseFileLock] = {}  # of the runs that this process trains


def read(run: Path) -> dict[str, Any]:
    """Return the content of ``run.json``; an empty dict if it cannot be read."""
    try:
        record = json.loads((run / FILE).read_text())
    except (FileNotFoundError, ValueError):  # for example, lost by the disk
        return {}
    return record if isinstance(record, dict) else {}


def is_own(run: Path) -> bool:
    """Return whether this process trains the run."""
    return run.resolve() in _locks


def state_of(run: Path) -> str:
    """Return "running", "finished", "failed", "interrupted", "killed", or "" without ``run.json``."""
    state = str(read(run).get("state", ""))
    return state if state != "running" or is_own(run) or _is_locked(run) else "killed"


def seconds(run: Path) -> float:
    """Return the training time of a run, summed over all starts.

    A start that is running, or was killed, counts until its last checkpoint, because later work is lost.
    """
    info = read(run)
    total = info.get("seconds", 0.0)
    if info.get("state") == "running" and "started" in info:
        start = datetime.fromisoformat([{"at": info["started"]}, *info.get("resumed", [])][-1]["at"]).timestamp()
        total += max([start, *(file.stat().st_mtime for file in run.glob("checkpoints/*.ckpt"))]) - start
    return round(total, 1)


def check_not_running(run: Path) -> None:
    """Check that no process trains a run.

    Raises:
        RunError: One does.
    """
    if state_of(run) == "running":
        info = read(run)
        raise RunError(f"Expected a run that is not running, but process {info['pid']} on {info['host']} trains {run}.")


def begin(run: Path, command: Sequence[str], **facts: Any) -> None:
    """Lock a run directory, and write ``run.json`` with the state "running".

    In a resumed run, versions, git and hardware remain those of the first start; each later start records those that
    differ.

    Args:
        run: Run directory.
        command: Command line, without ``python -m project``.
        facts: Further fields, such as ``seed`` and ``hardware``.

    Raises:
        RunError: Another process trains the run.
    """
    _locks[run.resolve()] = _acquire(run)
    before, timestamp = read(run), _timestamp()
    git, diff = read_code()
    facts |= {"versions": _versions(), "git": git}
    own = {name: facts.pop(name) for name in ENVIRONMENT if name in facts}
    first = {name: before[name] for name in ENVIRONMENT if name in before} if before else own
    info = {
        "state": "running",
        "host": platform.node(),
        "pid": os.getpid(),
        "started": before.get("started", timestamp),
        "seconds": seconds(run),
        "command": before.get("command", list(command)),
        **first,
        **facts,
    }
    if before:
        changed = {name: value for name, value in own.items() if name not in first or value != first[name]}
        info["resumed"] = [*before.get("resumed", []), {"at": timestamp, "command": list(command), **changed}]
    digest = (before.get("git") or {}).get("diff_sha256")
    if git and git.get("diff_sha256", digest) != digest:
        number = f"_{1 + len(info['resumed'])}" if before else ""
        (run / f"uncommitted{number}.diff").write_bytes(diff)
    _write(run, info)


def end(run: Path, state: str, seconds: float, error: str | None = None) -> None:
    """Write the final state of a run, and unlock its directory. Does nothing if this process does not train it.

    ``seconds`` is the time since ``begin``, and ``error`` why it failed, in one line.
    """
    lock = _locks.pop(run.resolve(), None)
    if lock is None:
        return
    info = read(run)
    info |= {"state": state, "ended": _timestamp(), "seconds": round(info.get("seconds", 0.0) + seconds, 1)}
    _write(run, info | ({"error": error} if error else {}))
    lock.release()


def processor() -> dict[str, Any]:
    """Return the name of the processor, and the number of cores available to this process."""
    try:
        match = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:  # not Linux
        match = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": match[1] if match else platform.processor() or platform.machine(), "cores": cores}


def _acquire(run: Path) -> BaseFileLock:
    """Lock a run directory; warn if its file system does not support locks."""
    lock = FileLock(run / LOCK, timeout=1, poll_interval=0.02, fallback_to_soft=False)  # _is_locked takes a moment
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(f"Expected a run that is not running, but another process trains {run}.") from error
    except OSError as error:
        if error.filename is not None:  # the file cannot be opened
            raise
        only = "Make sure that only one process trains it: others consider it killed."
        warnings.warn(f"{run} cannot be locked ({error.strerror}). {only}", stacklevel=3)  # Lustre without -o flock
    return lock


def _is_locked(run: Path) -> bool:
    """Return whether a process holds the lock; False if locks are not supported, or the file cannot be read."""
    for _ in range(3):  # another process that checks holds it for a moment, too
        try:
            with (run / LOCK).open() as lock:
                if lock_descriptor(lock.fileno(), blocking=False):
                    return False
        except OSError:
            return False
        time.sleep(0.01)
    return True


def _write(run: Path, info: dict[str, Any]) -> None:
    with write_atomically(run / FILE, durable=True) as partial:
        partial.write_text(json.dumps(info, indent=2) + "\n")


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # for example, a torch that was built without metadata
            versions[name] = metadata.version(name)
    return versions
