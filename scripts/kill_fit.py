"""Stop training at random moments, go on, and compare with a training that nobody disturbed.

python scripts/kill_fit.py --rounds 50

Every round is killed (SIGKILL) or stopped (SIGTERM, SIGINT) one to three times, and goes on by ``fit --run auto`` until
it is finished. Its last and best checkpoint must equal those of the undisturbed training to the bit, and its
metrics.csv, but for times, to the last row. Needs an operating system with fork. Trains on scikit-learn's digits, one
thread, by turns with what makes going on hard: dropout, average of weights and OneCycle; ReduceLROnPlateau, momentum
and accumulated gradients; EarlyStopping; epochs without a validation.
"""

import argparse
import csv
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import project.cli  # noqa: F401  # here, and not in every process
from project.__main__ import main as run_command
from project.measured import METRICS
from project.runs import BEST, LAST, find_run

KINDS = {
    "dropout, average of weights, OneCycle": [
        "--model.network=lightning_modules.networks.MLP",
        "--model.network.init_args.dropout=0.5",
        "--trainer.callbacks=[callbacks.EMA]",
        "--model.lr_scheduler=lightning_modules.schedules.OneCycle",
    ],
    "ReduceLROnPlateau, accumulated gradients": [
        "--trainer.callbacks=null",
        "--trainer.accumulate_grad_batches=2",
        "--model.optimizer.momentum=0.9",
        "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
        "--model.lr_scheduler.monitor=val/loss",
        "--model.lr_scheduler.patience=0",
    ],
    "EarlyStopping": [
        "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.EarlyStopping, "
        "init_args: {monitor: val/loss, patience: 1, min_delta: 9}}]",
    ],
    "validation every third epoch, StepLR": [
        "--trainer.callbacks=null",
        "--trainer.check_val_every_n_epoch=3",
        "--model.lr_scheduler={class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 1}}",
    ],
}
TIMES = ("time", "images_per_second", "seconds")  # in names of columns that no two runs share


def start(root: Path, runs_dir: Path, options: list[str], log: Path) -> int:
    """Go on with a training in a process of its own, or begin one, and return its number."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            with log.open("ab") as file:
                for stream in (1, 2):
                    os.dup2(file.fileno(), stream)
            torch.set_num_threads(1)
            # fmt: off
            run_command([
                "fit", "--config", "configs/lenet.yaml", "--data", "datamodules.SampleDataModule",
                f"--data.root={root}", "--data.batch_size=32", "--data.num_workers=0", f"--runs_dir={runs_dir}",
                "--trainer.max_epochs=4", "--trainer.log_every_n_steps=5", "--trainer.enable_progress_bar=false",
                "--trainer.enable_model_summary=false", "--report=false", "--run=auto", *options,
            ])
            # fmt: on
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:
            sys.stdout.flush()
            os._exit(code)
    return process


def finish(process: int) -> int:
    """Wait for a process, and return its exit code; below zero for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def same(one: Any, other: Any) -> bool:
    """Tell whether two values of a checkpoint are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def result(run: Path) -> dict[str, Any]:
    """Return what must not depend on how often a run was stopped."""
    found: dict[str, Any] = {}
    for name in (LAST, BEST):
        checkpoint = torch.load(run / name, weights_only=True)
        del checkpoint["callbacks"], checkpoint["loops"]  # paths, and counts of starts
        found |= {f"{name.stem} {key}": value for key, value in checkpoint.items()}
    with (run / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [{key: row[key] for key in sorted(row) if not any(one in key for one in TIMES)} for row in rows]
    return found | {METRICS: kept}


def main(arguments: list[str] | None = None) -> int:
    """Run the rounds, and return how many results differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="folder to keep the runs in")
    options = parser.parse_args(arguments)
    moments = random.Random(options.seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(options.keep or name)
        wanted, seconds = {}, {}
        for number, (kind, extra) in enumerate(KINDS.items()):
            runs_dir = folder / f"undisturbed_{number}"
            runs_dir.mkdir(parents=True)
            for _ in range(2 if number == 0 else 1):  # the first prepares the data
                begin = time.perf_counter()
                if finish(start(folder / "data", runs_dir, extra, runs_dir / "log.txt")) != 0:
                    raise SystemExit(f"The undisturbed training failed:\n{(runs_dir / 'log.txt').read_text()}")
                seconds[kind] = time.perf_counter() - begin
            wanted[kind] = result(find_run("last", runs_dir))
            print(f"undisturbed, {kind}: {seconds[kind]:.1f} s", flush=True)

        counts = {signal.SIGKILL: 0, signal.SIGTERM: 0, signal.SIGINT: 0}
        for number in range(options.rounds):
            kind = list(KINDS)[number % len(KINDS)]
            runs_dir = folder / f"round_{number}"
            runs_dir.mkdir()
            log = runs_dir / "log.txt"
            problems = []
            for _ in range(moments.randint(1, 3)):
                process = start(folder / "data", runs_dir, KINDS[kind], log)
                time.sleep(moments.uniform(0, seconds[kind]))
                sent = moments.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
                os.kill(process, sent)
                counts[sent] += 1
                code = finish(process)
                if code not in (0, -signal.SIGKILL, -signal.SIGTERM, 128 + sent):  # SIGTERM: before it is handled
                    problems.append(f"exit code {code} after {sent.name}")
            if (code := finish(start(folder / "data", runs_dir, KINDS[kind], log))) != 0:
                problems.append(f"exit code {code} at the end")
            else:
                found = result(find_run("last", runs_dir))
                keys = dict.fromkeys([*wanted[kind], *found])
                problems += [key for key in keys if not same(wanted[kind].get(key), found.get(key))]
            wrong += bool(problems)
            if problems:
                print(f"round {number}, {kind}: differs in {', '.join(problems)}", flush=True)
        words = ", ".join(f"{count} times {sent.name}" for sent, count in counts.items())
        print(f"{options.rounds} rounds, {words}: {wrong} results differ", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
