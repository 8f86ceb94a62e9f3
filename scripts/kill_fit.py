"""Stop training, resume it, and compare the results with those of an uninterrupted run.

python scripts/kill_fit.py --rounds 50

In each round, training is stopped one to three times by SIGKILL, SIGTERM or SIGINT, and resumed by ``fit --run auto``
until it finishes. last.ckpt and best.ckpt must equal those of the uninterrupted run to the bit, and metrics.csv, except
for times, to the last row.

One signal in four is sent at a random time. The other three are sent at a random line of Lightning's or this project's
code that runs while an epoch ends, a validation runs, a schedule steps or a checkpoint is written or read, because a
random time rarely hits these. Needs an operating system with fork. Trains on scikit-learn's digits with one thread,
with settings that are hard to resume: dropout, weight averaging and OneCycle; ReduceLROnPlateau, momentum and
accumulated gradients; EarlyStopping; epochs without validation; validations within an epoch; training metrics that a
schedule and callbacks monitor.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

import project.cli.cli  # noqa: F401  # imported once, before processes are forked
from project.__main__ import main as run_command
from project.runs.config import BEST, LAST
from project.runs.folders import find_run
from project.runs.metrics import METRICS

KINDS = {
    "dropout, average of weights, OneCycle": [
        "--model.network=lightning_modules.networks.MLP",
        "--model.network.init_args.dropout=0.5",
        "--callbacks=false",
        "--trainer.callbacks=[callbacks.EMA]",
        "--model.lr_scheduler=lightning_modules.optim.OneCycle",
    ],
    "ReduceLROnPlateau, accumulated gradients": [
        "--callbacks=false",
        "--trainer.accumulate_grad_batches=2",
        "--model.optimizer.momentum=0.9",
        "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
        "--model.lr_scheduler.monitor=val/loss",
        "--model.lr_scheduler.patience=0",
    ],
    "EarlyStopping": [
        "--callbacks=false",
        "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.EarlyStopping, "
        "init_args: {monitor: val/loss, patience: 1, min_delta: 9}}]",
    ],
    "validation every third epoch, StepLR": [
        "--callbacks=false",
        "--trainer.check_val_every_n_epoch=3",
        "--model.lr_scheduler={class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 1}}",
    ],
    "validations within an epoch, ReduceLROnPlateau": [
        "--callbacks=false",
        "--trainer.val_check_interval=0.4",
        "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
        "--model.lr_scheduler.monitor=val/loss",
        "--model.lr_scheduler.patience=0",
    ],
    "ReduceLROnPlateau and EarlyStopping on the training loss": [
        "--callbacks=false",
        "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.EarlyStopping, "
        "init_args: {monitor: train/loss, patience: 2, min_delta: 0.1}}]",
        "--checkpoint.monitor=train/loss",
        "--checkpoint.mode=min",
        "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
        "--model.lr_scheduler.monitor=train/loss",
        "--model.lr_scheduler.patience=0",
        "--model.lr_scheduler.threshold=0.2",
    ],
}
AIMS = {  # target of a signal: the function that runs it
    "epoch start": (_FitLoop, "on_advance_start"),
    "epoch end": (_FitLoop, "on_advance_end"),
    "validation": (_TrainingEpochLoop, "on_advance_end"),
    "schedule step": (_TrainingEpochLoop, "_update_learning_rates"),
    "checkpoint": (Trainer, "save_checkpoint"),
    "resume": (_FitLoop, "on_run_start"),
}
TRACED = ("/lightning/pytorch/loops/", "/lightning/pytorch/trainer/", "/lightning/pytorch/callbacks/", "/project/")
TIMES = ("time", "images_per_second", "seconds")  # in names of columns that differ between runs


class Sight:
    """Counts the lines of code that are executed within each of ``AIMS``, or sends a signal at one of them.

    Args:
        aim: Key of ``AIMS``; None to count only.
        line: Number of the line within ``aim``, from 0.
        number: The signal.
    """

    def __init__(self, aim: str | None = None, line: int = 0, number: int = signal.SIGKILL) -> None:
        self.line, self.number = line, number
        self.counts = dict.fromkeys(AIMS if aim is None else [aim], 0)
        self.aim = aim
        for name in self.counts:
            owner, function = AIMS[name]
            setattr(owner, function, self._traced(name, getattr(owner, function)))

    def _traced(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            if not any(part in frame.f_code.co_filename for part in TRACED):
                return None
            if event == "line":
                if self.aim is not None and self.counts[name] == self.line:
                    print(f"{signal.Signals(self.number).name} in {name}, {frame}", flush=True)
                    os.kill(os.getpid(), self.number)
                self.counts[name] += 1
            return trace

        def traced(*args: Any, **kwargs: Any) -> Any:
            before = sys.gettrace()
            sys.settrace(trace)
            try:
                return function(*args, **kwargs)
            finally:
                sys.settrace(before)

        return traced


def start(root: Path, runs_dir: Path, options: list[str], sight: tuple[Any, ...] | None = None) -> int:
    """Start or resume a run in a child process, and return its process ID.

    Args:
        root: Data directory.
        runs_dir: Parent of the run directory. Output is written to its log.txt, counted lines to its counts.json.
        options: Options of ``fit``.
        sight: Arguments of ``Sight``; None for no tracing.
    """
    process = os.fork()
    if process == 0:
        code = 1
        try:
            with (runs_dir / "log.txt").open("ab") as file:
                for stream in (1, 2):
                    os.dup2(file.fileno(), stream)
            torch.set_num_threads(1)
            counts = Sight(*sight).counts if sight is not None else {}
            # fmt: off
            run_command([
                "fit", "--config", "configs/lenet.yaml", "--data", "datamodules.SampleDataModule",
                f"--data.root={root}", "--data.batch_size=32", "--data.num_workers=0", f"--runs_dir={runs_dir}",
                "--trainer.max_epochs=4", "--trainer.limit_train_batches=20", "--trainer.log_every_n_steps=5",
                "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--report=false",
                "--run=auto", *options,
            ])
            # fmt: on
            (runs_dir / "counts.json").write_text(json.dumps(counts))
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:
            sys.stdout.flush()
            os._exit(code)
    return process


def finish(process: int) -> int:
    """Wait for a process, and return its exit code; the negative signal number if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def same(first: Any, second: Any) -> bool:
    """Return whether two values of a checkpoint are equal to the bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        if not isinstance(second, dict) or first.keys() != second.keys():
            return False
        return all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(same(*pair) for pair in zip(first, second, strict=True))
    return bool(first == second)


def result(run: Path) -> dict[str, Any]:
    """Return the results of a run that must not depend on interruptions."""
    results: dict[str, Any] = {}
    for name in (LAST, BEST):
        checkpoint = torch.load(run / name, weights_only=True)
        del checkpoint["callbacks"], checkpoint["loops"]  # they hold paths, and numbers of starts
        results |= {f"{name.stem} {key}": value for key, value in checkpoint.items()}
    with (run / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [{key: row[key] for key in sorted(row) if not any(word in key for word in TIMES)} for row in rows]
    return results | {METRICS: cells}


def main(arguments: list[str] | None = None) -> int:
    """Run the rounds, and return the number of rounds whose results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="directory of the runs; default: a temporary directory")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup, or a shell's background job, ignores it
    moments = random.Random(options.seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(options.keep or name)
        expected, seconds, lines = {}, {}, {}
        for number, (kind, extra) in enumerate(KINDS.items()):
            runs_dir = folder / f"uninterrupted_{number}"
            runs_dir.mkdir(parents=True)
            if number == 0:  # prepares the data
                finish(start(folder / "data", runs_dir, ["--trainer.max_epochs=1"]))
            for sight in (None, ()):
                begin = time.perf_counter()
                if finish(start(folder / "data", runs_dir, extra, sight)) != 0:
                    raise SystemExit(f"The uninterrupted run failed:\n{(runs_dir / 'log.txt').read_text()}")
                seconds.setdefault(kind, time.perf_counter() - begin)
            lines[kind] = json.loads((runs_dir / "counts.json").read_text())
            expected[kind] = result(find_run("last", runs_dir))
            print(f"uninterrupted, {kind}: {seconds[kind]:.1f} s", flush=True)

        counts = {signal.SIGKILL: 0, signal.SIGTERM: 0, signal.SIGINT: 0}
        for number in range(options.rounds):
            kind = list(KINDS)[number % len(KINDS)]
            runs_dir = folder / f"round_{number}"
            runs_dir.mkdir()
            problems = []
            for _ in range(moments.randint(1, 3)):
                sent = moments.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
                counts[sent] += 1
                if moments.random() < 0.25:
                    process = start(folder / "data", runs_dir, KINDS[kind])
                    time.sleep(moments.uniform(0, seconds[kind]))
                    os.kill(process, sent)
                else:
                    aim = moments.choice(list(AIMS))
                    sight = (aim, moments.randrange(lines[kind][aim]), sent)
                    process = start(folder / "data", runs_dir, KINDS[kind], sight)
                code = finish(process)
                if code not in (
                    0,
                    -signal.SIGKILL,
                    -signal.SIGTERM,
                    128 + sent,
                ):  # -SIGTERM: before the handler is installed
                    problems.append(f"exit code {code} after {sent.name}")
            if (code := finish(start(folder / "data", runs_dir, KINDS[kind]))) != 0:
                problems.append(f"exit code {code} at the end")
            else:
                actual = result(find_run("last", runs_dir))
                keys = dict.fromkeys([*expected[kind], *actual])
                problems += [key for key in keys if not same(expected[kind].get(key), actual.get(key))]
            wrong += bool(problems)
            if problems:
                print(f"round {number}, {kind}: differs in {', '.join(problems)}", flush=True)
            elif options.keep is None:
                shutil.rmtree(runs_dir)
        words = ", ".join(f"{count} times {sent.name}" for sent, count in counts.items())
        print(f"{options.rounds} rounds, {words}: {wrong} results differ", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
