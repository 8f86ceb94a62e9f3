"""Kill the preparation of data at random times, run it again, and compare with an uninterrupted one.

python scripts/kill_prepare.py --rounds 100

Each round starts with an empty directory, is killed (SIGKILL) one to three times, and then finished. Afterwards, two
and four processes prepare one directory at once; in every second round, one of them is killed. Prints one line per
kind, and exits with 1 if any result differs. Needs an operating system with fork. The archive holds random images in
the format of CIFAR-10.
"""

import argparse
import hashlib
import io
import json
import os
import pickle
import random
import signal
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from datamodules import CIFAR10DataModule
from datamodules.preparation.cifar10_archive import BATCHES, FOLDER
from datamodules.preparation.dataset_info import FILE


def make_archive(path: Path, images: int) -> None:
    """Write an archive of six batches of random images."""
    numbers = np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as tar:
        for name in BATCHES:
            batch = {
                b"data": numbers.integers(0, 256, (images, 3072), np.uint8),
                b"labels": [i % 10 for i in range(images)],
            }
            content = pickle.dumps(batch, protocol=2)
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def start(root: Path, archive: Path) -> int:
    """Prepare ``root`` in a child process, and return its process ID."""
    process = os.fork()
    if process == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        try:
            CIFAR10DataModule(root=str(root), archive=str(archive)).prepare_data()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return process


def finish(process: int) -> bool:
    """Wait for a process, and return whether it succeeded."""
    return os.waitpid(process, 0)[1] == 0


def kill(process: int, after: float) -> None:
    """Kill a process after some seconds, unless it has already finished."""
    time.sleep(after)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def result(root: Path) -> dict[str, str]:
    """Return a digest of each file that ``prepare`` writes, without fields that depend on modification times."""
    digests = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or name == ".lock" or (path.parent.name == "cache" and path.suffix == ".json"):
            continue
        content = path.read_bytes()
        if path.parent.name == "cache":
            name = f"cache/pixels{path.suffix}"
        elif name == FILE:
            description = json.loads(content)
            for pixels in description["pixels"].values():
                del pixels["fingerprint"]
            content = json.dumps(description).encode()
        digests[name] = hashlib.sha256(content).hexdigest()
    return digests


def main(arguments: list[str] | None = None) -> int:
    """Run the rounds, and return the number of rounds whose results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--images", type=int, default=500, help="images in each of six batches")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    moments = random.Random(options.seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive.tar.gz"
        make_archive(archive, options.images)
        begin = time.perf_counter()
        if not finish(start(Path(folder) / "uninterrupted", archive)):
            raise SystemExit("The uninterrupted preparation failed.")
        seconds = time.perf_counter() - begin
        expected = result(Path(folder) / "uninterrupted")
        print(f"uninterrupted: {len(expected)} files in {seconds:.2f} s", flush=True)

        killed = 0
        for number in range(options.rounds):
            root = Path(folder) / f"round_{number}"
            for _ in range(moments.randint(1, 3)):
                kill(start(root, archive), moments.uniform(0, seconds))
                killed += 1
            wrong += not finish(start(root, archive)) or result(root) != expected
        print(f"{options.rounds} rounds, {killed} times killed: {wrong} results differ", flush=True)

        for together in (2, 4):
            differ = 0
            for number in range(max(1, options.rounds // 10)):
                root = Path(folder) / f"{together}_{number}"
                processes = [start(root, archive) for _ in range(together)]
                if number % 2:
                    kill(processes.pop(0), moments.uniform(0, seconds))
                done = [finish(process) for process in processes]
                differ += not all(done) or result(root) != expected
            print(
                f"{together} processes at once, {max(1, options.rounds // 10)} times: {differ} results differ",
                flush=True,
            )
            wrong += differ
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
