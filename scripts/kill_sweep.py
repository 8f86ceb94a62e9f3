"""Kill the processes of a sweep, resume it, and compare its trials with those of an uninterrupted one.

python scripts/kill_sweep.py --kills 20

Two workers run one sweep; each is started again as soon as it has exited. SIGKILL is sent at random times, to a worker
or to a worker and its trial, as when a machine fails. In the end, parameters, values and states of all trials must
equal those of the uninterrupted sweep, and every trial must have exactly one run. Needs an operating system with fork.
Trains on scikit-learn's digits with one thread.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import torch

import project.cli.cli  # noqa: F401  # imported once, before processes are forked
from project.__main__ import main as run_command
from project.runs.folders import all_runs
from project.sweep import results, worker  # noqa: F401  # the same
from project.sweep.study import Trials, read_sweep
from project.sweep.trial import watch

METHODS = {
    "grid": "parameters: {model.optimizer.lr: [0.01, 0.05, 0.1], seed_everything: [0, 1]}",
    "random": "{method: random, trials: 6, parameters: {model.optimizer.lr: {low: 0.001, high: 0.5, log: true}}}",
    "tpe": "{method: tpe, trials: 6, parameters: {model.optimizer.lr: {low: 0.001, high: 0.5, log: true}}}",
}


class Forked:
    """A process of ``project`` that is forked instead of started, because importing torch takes seconds."""

    def __init__(self, args: list[str], log: Path | BinaryIO, session: bool = True) -> None:
        self.returncode: int | None = None
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            if session:
                os.setsid()
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                threading.Thread(target=watch, args=[parent], daemon=True).start()
            stream = log.open("ab") if isinstance(log, Path) else log
            for number in (1, 2):
                os.dup2(stream.fileno(), number)
            torch.set_num_threads(1)
            run_command(args)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:
            sys.stdout.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


def children(pid: int) -> list[int]:
    """Return the child processes of a process (Linux)."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def finish(process: Forked) -> int:
    """Wait for a process, and return its exit code."""
    while (code := process.poll()) is None:
        time.sleep(0.1)
    return code


def command(root: Path, method: str, kind: str) -> list[str]:
    """Return the command line of a sweep."""
    # fmt: off
    return [
        "sweep", f"--sweep={root}/{method}.yaml", f"--sweep_dir={root}/{kind}/sweep", f"--runs_dir={root}/{kind}/runs",
        "--config", "configs/lenet.yaml", "--data", "datamodules.SampleDataModule", f"--data.root={root}/data",
        "--data.batch_size=32", "--data.num_workers=0", "--report=false", "--trainer.max_epochs=6",
        "--trainer.limit_train_batches=20", "--trainer.log_every_n_steps=5", "--trainer.enable_progress_bar=false",
        "--callbacks=false",
    ]
    # fmt: on


def outcome(folder: Path) -> list[tuple[Any, ...]]:
    """Return parameters, value and state of each trial."""
    trials = Trials(folder, read_sweep(folder)).study.trials
    return [(sorted(trial.params.items()), trial.value, trial.state.name) for trial in trials]


def main(arguments: list[str] | None = None) -> int:
    """Run the sweeps, and return the number of those that differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--methods", nargs="+", default=["grid", "random"], choices=METHODS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="directory of the runs; default: a temporary directory")
    options = parser.parse_args(arguments)
    worker.start = Forked  # type: ignore[assignment]  # it has the methods that are used
    moments, wrong, killed = random.Random(options.seed), 0, {"worker": 0, "worker and trial": 0}
    with tempfile.TemporaryDirectory() as name:
        root = options.keep or Path(name)
        root.mkdir(parents=True, exist_ok=True)
        expected: dict[str, Any] = {}
        sweeps = 0
        while sum(killed.values()) < options.kills:
            method = options.methods[sweeps % len(options.methods)]
            if method not in expected:
                (root / f"{method}.yaml").write_text(METHODS[method])
                begin = time.perf_counter()
                final = Forked(command(root, method, f"{method}_uninterrupted"), root / f"{method}.log", session=False)
                if finish(final) != 0:
                    raise SystemExit(f"The uninterrupted sweep failed:\n{(root / f'{method}.log').read_text()}")
                seconds = time.perf_counter() - begin
                expected[method] = outcome(root / f"{method}_uninterrupted/sweep")
                print(f"uninterrupted, {method}: {len(expected[method])} trials, {seconds:.1f} s", flush=True)
            kind = f"{method}_{sweeps}"
            log = root / f"{kind}.log"
            line = command(root, method, kind)
            workers = [Forked(line, log, session=False) for _ in range(options.workers)]
            while all(each.poll() in (None, -signal.SIGKILL) for each in workers):
                workers = [Forked(line, log, session=False) if each.poll() is not None else each for each in workers]
                time.sleep(moments.uniform(0.1, seconds / len(expected[method])))
                target, victim = moments.choice(workers), moments.choice(list(killed))
                if target.poll() is None and sum(killed.values()) < options.kills:
                    for pid in [target.pid, *(children(target.pid) if victim == "worker and trial" else [])]:
                        os.kill(pid, signal.SIGKILL)
                    killed[victim] += 1
            codes = [finish(each) for each in [*workers, Forked(line, log, session=False)]]
            runs, actual = all_runs(root / kind / "runs"), outcome(root / kind / "sweep")
            same = actual == expected[method] and len(runs) == len(actual) and {*codes} <= {0, -signal.SIGKILL}
            words = ", ".join(f"{count} times a {victim}" for victim, count in killed.items())
            print(f"{kind}: killed so far {words}; {len(runs)} runs; {'equal' if same else 'differs'}", flush=True)
            if not same:
                print(codes, expected[method], actual, log.read_text(), sep="\n")
            wrong += not same
            sweeps += 1
        print(f"{sweeps} sweeps, {sum(killed.values())} kills: {wrong} results differ", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
