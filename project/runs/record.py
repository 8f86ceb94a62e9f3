"""What is written down of a run beside its results, in ``run.json``: who ran it, on what, and how it ended. No torch.

A process that trains holds a lock on its run's folder, which the operating system frees when the process ends, however
it ends. So a run whose file says "running" but whose lock is free was killed. Where the file system has no locks, a run
is running if a process of its number is on this machine.
"""

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any, NamedTuple

from project.errors import RunError
from project.runs.git import read_code
from project.runs.lock import LockedError, acquire, is_locked

FILE, LOCK = "run.json", ".lock"
ENVIRONMENT = ("git", "versions", "hardware")  # what may differ between the starts of a run
PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "jsonargparse", "numpy", "pillow")
MOST_DIFF = 10_000_000  # bytes; more is not a change to the code


class _Held(NamedTuple):
    lock: IO[str]
    before: bytes | None  # what run.json was
    diff: Path  # of this start, if it has one


_held: dict[Path, _Held] = {}


def read(run: Path) -> dict[str, Any]:
    """Return what ``run.json`` holds, or nothing of a run without."""
    try:
        found = json.loads((run / FILE).read_text())
    except (FileNotFoundError, ValueError):  # of a disk that lost it, say
        return {}
    return found if isinstance(found, dict) else {}


def state_of(run: Path) -> str:
    """Return "running", "finished", "failed", "interrupted", "killed", or "" of a run without ``run.json``."""
    told = read(run)
    state = str(told.get("state", ""))
    if state != "running" or run.resolve() in _held:  # whoever holds the lock may not ask for it
        return state
    held = is_locked(run / LOCK)
    if held is None:
        held = told.get("host") == platform.node() and _process_exists(told.get("pid"))
    return state if held else "killed"


def seconds(run: Path) -> float:
    """Return how long a run trained, all its starts together.

    A start that has not ended, or was killed, counts to the last checkpoint: what came behind it was lost.
    """
    told = read(run)
    total = told.get("seconds", 0.0)
    if told.get("state") == "running" and "started" in told:
        at = (told.get("resumed") or [{"at": told["started"]}])[-1]["at"]
        began = datetime.fromisoformat(at).timestamp()
        total += max([began, *(file.stat().st_mtime for file in run.glob("checkpoints/*.ckpt"))]) - began
    return round(total, 1)


def begin(run: Path, command: Sequence[str], **facts: Any) -> None:
    """Lock a run's folder and write down that it is running, and what it runs with.

    Of a run that goes on, versions, git and hardware stay those of its first start; each later start tells those of its
    own that differ.

    Args:
        run: Folder of the run.
        command: Command line, without ``python -m project``.
        facts: What else is to be written down: ``seed``, ``hardware`` and the like.

    Raises:
        RunError: Another process trains it.
    """
    try:
        lock = acquire(run / LOCK)
    except LockedError as error:
        raise RunError(
            f"Expected a run that no process trains, but {run} is running, as process {read(run).get('pid')} on "
            f"{read(run).get('host')}. Stop that one, or wait for its end."
        ) from error
    before, now = read(run), _now()
    start = 1 if not before else 2 + len(before.get("resumed", []))
    diff_file = run / ("uncommitted.diff" if start == 1 else f"uncommitted_{start}.diff")
    _held[run.resolve()] = _Held(lock, (run / FILE).read_bytes() if (run / FILE).is_file() else None, diff_file)
    git, diff = read_code()
    facts |= {"versions": {"python": platform.python_version(), **_versions()}, "git": git}
    own = {name: facts.pop(name) for name in ENVIRONMENT if name in facts}
    first = {name: before[name] for name in ENVIRONMENT if name in before} if before else own
    record = {
        "state": "running",
        "host": platform.node(),
        "pid": os.getpid(),
        "started": before.get("started", now),
        "seconds": seconds(run),
        "command": before.get("command", list(command)),
        **first,
        **facts,
    }
    if before:
        others = {name: value for name, value in own.items() if name not in first or value != first[name]}
        record["resumed"] = [*before.get("resumed", []), {"at": now, "command": list(command), **others}]
    known = (before.get("git") or {}).get("diff_sha256")
    if git and git.get("diff_sha256", known) != known:
        diff_file.write_bytes(diff[:MOST_DIFF])
    _write(run, record)


def take_back(run: Path) -> None:
    """Leave a run as it was before ``begin``, and free its folder: for a start that was refused before it trained."""
    held = _held.pop(run.resolve(), None)
    if held is None:
        return
    held.diff.unlink(missing_ok=True)
    if held.before is None:
        (run / FILE).unlink(missing_ok=True)
    else:
        _replace(run, held.before)
    held.lock.close()


def end(run: Path, state: str, seconds: float, error: str | None = None) -> None:
    """Write down how a run ended, and free its folder; does nothing if it is not held.

    Args:
        run: Folder of the run.
        state: "finished", "failed" or "interrupted".
        seconds: Time since ``begin``.
        error: Why it failed, in one line.
    """
    held = _held.pop(run.resolve(), None)
    if held is None:
        return
    record = read(run)
    record |= {"state": state, "ended": _now(), "seconds": round(record.get("seconds", 0.0) + seconds, 1)}
    _write(run, record | ({"error": error} if error else {}))
    held.lock.close()


def processor() -> dict[str, Any]:
    """Return the name of the processor, and the number of cores that this process may use."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:  # not Linux
        found = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": found[1] if found else platform.processor() or platform.machine(), "cores": cores}


def _process_exists(pid: Any) -> bool:
    """Tell whether this machine has a process of this number."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:  # of another user
        return True
    except (OSError, TypeError, ValueError):  # a number of no process, or none
        return False
    return True


def _write(run: Path, record: dict[str, Any]) -> None:
    _replace(run, f"{json.dumps(record, indent=2)}\n".encode())


def _replace(run: Path, content: bytes) -> None:
    beside = run / f"{FILE}.{os.getpid()}.tmp"
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # or, when the power fails, the new name might come before the content
    beside.replace(run / FILE)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
