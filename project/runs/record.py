"""Read and write ``run.json``: command line, versions, hardware and final state of a run. Imports no torch.

A process that trains holds a lock on its run directory, which the operating system releases when the process exits. A
run whose state is "running" but whose lock is free was killed. If the file system does not support locks, a run is
running if its process ID exists on this machine.
"""

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from filelock import BaseFileLock, Timeout

from atomic_files import write_atomically
from project.errors import RunError
from project.runs.git import read_code
from project.runs.lock import acquire, is_locked

FILE, LOCK = "run.json", ".lock"
ENVIRONMENT = ("git", "versions", "hardware")  # fields that may differ between starts of a run
PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "jsonargparse", "numpy", "pillow")
MOST_DIFF = 10_000_000  # bytes; a larger diff is not a change to the code


class _Active(NamedTuple):
    lock: BaseFileLock
    before: bytes | None  # previous content of run.json
    diff: Path  # uncommitted changes of this start; may not exist


_active: dict[Path, _Active] = {}


def read(run: Path) -> dict[str, Any]:
    """Return the content of ``run.json``; an empty dict if it cannot be read."""
    try:
        record = json.loads((run / FILE).read_text())
    except (FileNotFoundError, ValueError):  # for example, lost by the disk
        return {}
    return record if isinstance(record, dict) else {}


def is_own(run: Path) -> bool:
    """Return whether this process trains the run."""
    return run.resolve() in _active


def state_of(run: Path) -> str:
    """Return "running", "finished", "failed", "interrupted", "killed", or "" without ``run.json``."""
    info = read(run)
    state = str(info.get("state", ""))
    if state != "running" or is_own(run):
        return state
    is_running = is_locked(run / LOCK)
    if is_running is None:
        is_running = info.get("host") == platform.node() and _process_exists(info.get("pid"))
    return state if is_running else "killed"


def seconds(run: Path) -> float:
    """Return the training time of a run, summed over all starts.

    A start that is running, or was killed, counts until its last checkpoint, because later work is lost.
    """
    info = read(run)
    total = info.get("seconds", 0.0)
    if info.get("state") == "running" and "started" in info:
        at = (info.get("resumed") or [{"at": info["started"]}])[-1]["at"]
        start = datetime.fromisoformat(at).timestamp()
        total += max([start, *(file.stat().st_mtime for file in run.glob("checkpoints/*.ckpt"))]) - start
    return round(total, 1)


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
    try:
        lock = acquire(run / LOCK)
    except Timeout as error:
        raise RunError(
            f"Expected a run that is not running, but {run} is running as process {read(run).get('pid')} on "
            f"{read(run).get('host')}. Stop that process, or wait until it exits."
        ) from error
    before, timestamp = read(run), _timestamp()
    start = 1 if not before else 2 + len(before.get("resumed", []))
    diff_file = run / ("uncommitted.diff" if start == 1 else f"uncommitted_{start}.diff")
    _active[run.resolve()] = _Active(lock, (run / FILE).read_bytes() if (run / FILE).is_file() else None, diff_file)
    git, diff = read_code()
    facts |= {"versions": {"python": platform.python_version(), **_versions()}, "git": git}
    own = {name: facts.pop(name) for name in ENVIRONMENT if name in facts}
    first = {name: before[name] for name in ENVIRONMENT if name in before} if before else own
    record = {
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
        record["resumed"] = [*before.get("resumed", []), {"at": timestamp, "command": list(command), **changed}]
    digest = (before.get("git") or {}).get("diff_sha256")
    if git and git.get("diff_sha256", digest) != digest:
        diff_file.write_bytes(diff[:MOST_DIFF])
    _write(run, record)


def roll_back(run: Path) -> None:
    """Restore a run directory as it was before ``begin``, and unlock it: for a start that failed before training."""
    active = _active.pop(run.resolve(), None)
    if active is None:
        return
    active.diff.unlink(missing_ok=True)
    if active.before is None:
        (run / FILE).unlink(missing_ok=True)
    else:
        _replace(run, active.before)
    active.lock.release()


def end(run: Path, state: str, seconds: float, error: str | None = None) -> None:
    """Write the final state of a run, and unlock its directory. Does nothing if this process does not train it.

    Args:
        run: Run directory.
        state: "finished", "failed" or "interrupted".
        seconds: Time since ``begin``.
        error: Why it failed, in one line.
    """
    active = _active.pop(run.resolve(), None)
    if active is None:
        return
    record = read(run)
    record |= {"state": state, "ended": _timestamp(), "seconds": round(record.get("seconds", 0.0) + seconds, 1)}
    _write(run, record | ({"error": error} if error else {}))
    active.lock.release()


def processor() -> dict[str, Any]:
    """Return the name of the processor, and the number of cores available to this process."""
    try:
        match = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:  # not Linux
        match = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": match[1] if match else platform.processor() or platform.machine(), "cores": cores}


def _process_exists(pid: Any) -> bool:
    """Return whether a process ID exists on this machine."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:  # of another user
        return True
    except (OSError, TypeError, ValueError):  # no such process, or not a number
        return False
    return True


def _write(run: Path, record: dict[str, Any]) -> None:
    _replace(run, f"{json.dumps(record, indent=2)}\n".encode())


def _replace(run: Path, content: bytes) -> None:
    with write_atomically(run / FILE, durable=True) as partial:
        partial.write_bytes(content)


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
