"""Measure what looking inside costs, as tables in Markdown: histograms, and whole runs with all callbacks and without.

python scripts/benchmark_callbacks.py --root data/cifar10 --output callbacks.md

Histograms of the weights and gradients of ResNet-18 are gathered as the callbacks do, and logged by a loop over
``SummaryWriter.add_histogram`` as tutorials do, in turn; the script compares the counts of both. Then a recipe is
trained with all its callbacks and with none, by turns of ten seconds, so that a machine whose speed wanders is the same
to both, and the weights that both end with are compared. Whole runs are timed from the first batch until everything is
drawn and written.
"""

import argparse
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from measure import fit, hardware, now
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from callbacks.base.steps import Step
from callbacks.tools.histogram import gather
from lightning_modules.networks import ResNet
from project.cli.cli import CLI

TURN = 10  # seconds that a whole run trains before the other goes on


def resnet18(device: torch.device) -> tuple[LightningModule, dict[str, Tensor]]:
    """Return a ResNet-18 that has seen one batch, and its weights and gradients, 22 million values."""
    torch.manual_seed(0)
    network = ResNet(10, 18).to(device)
    logits = network(torch.randn(8, 3, 32, 32, device=device))
    torch.nn.functional.cross_entropy(logits, torch.arange(8, device=device)).backward()
    module = LightningModule()
    module.network = network
    weights = {f"weights/{name}": parameter.detach() for name, parameter in network.named_parameters()}
    gradients = {f"gradients/{name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return module, weights | gradients


def log_gathered(writer: SummaryWriter, tensors: dict[str, Tensor], step: int) -> None:
    """Log histograms as ``callbacks.Histograms`` does, without its thread."""
    for tag, statistics_of in gather(tensors).items():
        if statistics_of.histogram is not None:
            writer.add_histogram_raw(tag, **statistics_of.histogram._asdict(), global_step=step)


def log_each(writer: SummaryWriter, tensors: dict[str, Tensor], step: int) -> None:
    """Log histograms as tutorials do."""
    for tag, tensor in tensors.items():
        writer.add_histogram(tag, tensor, step)


def counts_in(folder: Path) -> dict[str, dict[float, float]]:
    """Return the filled buckets of each histogram that was logged last, by their upper edge."""
    events = EventAccumulator(str(folder), {"histograms": 1}).Reload()
    found = {}
    for tag in events.Tags()["histograms"]:
        histogram = events.Histograms(tag)[-1].histogram_value
        pairs = zip(histogram.bucket_limit, histogram.bucket, strict=True)
        found[tag] = {limit: count for limit, count in pairs if count}
    return found


def measure_histograms(device: torch.device, repeats: int, folder: Path) -> dict[str, Any]:
    """Return the seconds of each way to log histograms on a device, and whether their counts are equal."""
    module, tensors = resnet18(device)
    seconds: dict[str, list[float]] = defaultdict(list)
    ways = {
        "add_histogram in a loop": log_each,
        "callbacks.tools.histogram, transfer and log": log_gathered,
        "of it, on the thread that trains": None,
    }
    with SummaryWriter(folder / "loop", max_queue=1000) as loop, SummaryWriter(folder / "ours", max_queue=1000) as ours:
        writers = {log_each: loop, log_gathered: ours}
        for step in range(repeats + 1):
            for name, way in ways.items():
                loop.flush()  # or the thread that writes would hold the next one up
                ours.flush()
                start = now()
                if way is None:
                    Step(step, module)
                else:
                    way(writers[way], tensors, step)
                if step:  # the first makes tables and fills caches
                    seconds[name].append(now() - start)
    return {
        "device": device.type,
        "tensors": len(tensors),
        "values": sum(map(Tensor.numel, tensors.values())),
        "equal": counts_in(folder / "loop") == counts_in(folder / "ours"),
        "seconds": dict(seconds),
    }


def histogram_lines(measured: dict[str, Any]) -> list[str]:
    """Return what ``measure_histograms`` measured as lines of Markdown."""
    baseline = measured["seconds"]["add_histogram in a loop"]
    lines = [
        f"Histograms of ResNet-18 on {measured['device']}: {measured['tensors']} tensors,",
        f"{measured['values']:,} values; n = {len(baseline)}, in turn.",
        f"Counts of both are {'equal' if measured['equal'] else 'NOT EQUAL'}.",
        "",
        "| way | milliseconds, median (min to max) | times as fast, median of ratios |",
        "|---|---|---|",
    ]
    for name, values in measured["seconds"].items():
        ratio = statistics.median(slow / fast for slow, fast in zip(baseline, values, strict=True))
        spread = f"{statistics.median(values) * 1e3:.1f} ({min(values) * 1e3:.1f} to {max(values) * 1e3:.1f})"
        lines.append(f"| {name} | {spread} | {ratio:.1f} |")
    return lines


class Clock(Callback):
    """Tell when the first batch is about to be trained."""

    def __init__(self, tell: Connection) -> None:
        self.tell = tell

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.tell.send("begin")


def train(args: list[str], folder: Path, weights: Path, tell: Connection) -> None:
    """Train in a process of its own, tell its beginning and end, and write the weights that it ends with."""
    os.setpgrp()  # workers are to pause with it
    with redirect_stdout(StringIO()):
        cli = fit([*args, "--report=false", "--trainer.profiler=simple", f"--runs_dir={folder}"], Clock(tell))
    now()
    torch.save(cli.model.network.state_dict(), weights)
    tell.send((costs(cli), cli.trainer.current_epoch))


def costs(cli: CLI) -> Counter[str]:
    """Return how many seconds each of the project's callbacks held up training."""
    found: Counter[str] = Counter()
    for action, durations in cli.trainer.profiler.recorded_durations.items():
        if action.startswith("[Callback]"):
            name = action.removeprefix("[Callback]").partition(".")[0].partition("{")[0]
            found[name] += sum(durations)
    ours = {type(one).__name__ for one in cli.trainer.callbacks if type(one).__module__.startswith("callbacks.")}
    return Counter({name: seconds for name, seconds in found.items() if name in ours})


def train_in_turn(args: list[str], folder: Path) -> dict[bool, tuple[float, Counter[str], int]]:
    """Train with all callbacks of a recipe and with none, by turns of some seconds, so that both see the same machine.

    Returns:
        With callbacks and without: seconds from the first batch on, pauses left out; those of each callback; epochs.
    """
    context = multiprocessing.get_context("spawn")
    pairs, processes = {}, {}
    for with_callbacks in (False, True):
        pairs[with_callbacks], theirs = context.Pipe()
        options = [] if with_callbacks else ["--trainer.callbacks=null"]
        weights = folder / f"{with_callbacks}.pt"
        process = context.Process(target=train, args=([*args, *options], folder / "runs", weights, theirs))
        process.start()
        processes[with_callbacks] = process
        pairs[with_callbacks].recv()  # it is about to train
        os.killpg(process.pid, signal.SIGSTOP)
    seconds = {False: 0.0, True: 0.0}
    found: dict[bool, tuple[float, Counter[str], int]] = {}
    try:
        while len(found) < 2:
            for which in seconds.keys() - found.keys():
                os.killpg(processes[which].pid, signal.SIGCONT)
                start = time.perf_counter()
                done = pairs[which].poll(TURN)
                seconds[which] += time.perf_counter() - start
                if done:
                    found[which] = (seconds[which], *pairs[which].recv())
                    processes[which].join()
                else:
                    os.killpg(processes[which].pid, signal.SIGSTOP)
    finally:
        for process in processes.values():
            process.kill()
    return found


def measure_runs(args: list[str], repeats: int, folder: Path) -> list[str]:
    """Return the lines about whole runs."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    held: list[Counter[str]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for repeat in range(repeats):
        found = train_in_turn(args, folder)
        held.append(found[True][1])
        epochs = found[True][2]
        for with_callbacks, (took, _, _) in found.items():
            seconds[with_callbacks].append(took)
            print(f"{repeat} callbacks {'on' if with_callbacks else 'off'}: {took:.1f} s", file=sys.stderr, flush=True)
    weights = {which: torch.load(folder / f"{which}.pt", weights_only=True) for which in (True, False)}
    same = all(torch.equal(one, weights[False][name]) for name, one in weights[True].items())
    ratios = [on / off for on, off in zip(seconds[True], seconds[False], strict=True)]
    lines = [
        f"`fit {' '.join(args)}`: {epochs} epochs, n = {repeats}, by turns of {TURN} s.",
        f"Weights of both at the end are {'equal to the bit' if same else 'NOT EQUAL'}.",
        "",
        "| callbacks | seconds, median (min to max) | over none |",
        "|---|---|---|",
    ]
    for with_callbacks, name in ((False, "none"), (True, "all of the recipe")):
        values = seconds[with_callbacks]
        ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})" if with_callbacks else "1"
        lines.append(f"| {name} | {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) | {ratio} |")
    lines += [
        "",
        "Milliseconds an epoch that each callback held the training thread up:",
        "",
        "| callback | ms |",
        "|---|---|",
    ]
    names = sorted(
        {name for one in held for name in one}, key=lambda name: -statistics.median(one[name] for one in held)
    )
    lines += [f"| {name} | {statistics.median(one[name] for one in held) / epochs * 1e3:.1f} |" for name in names]
    return lines


def main(args: list[str] | None = None) -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/resnet20.yaml", help="recipe of the whole runs")
    parser.add_argument("--epochs", type=int, default=5, help="of each whole run")
    parser.add_argument("--repeats", type=int, default=1, help="whole runs with and without callbacks; 0 for none")
    parser.add_argument("--events", type=int, default=9, help="times that histograms are logged")
    parser.add_argument("--root", help="prepared folder of the data; by default the recipe's own")
    parser.add_argument("--runs_dir", help="folder to keep the runs in; by default they are deleted")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="further options of fit, at the end")
    parser.add_argument("--output", help="file to write the tables to, besides printing them")
    options = parser.parse_args(args)

    lines = [
        f"{hardware()}; Python {platform.python_version()}, torch {torch.__version__}, lightning",
        f"{lightning.__version__}, {time.strftime('%Y-%m-%d')}.",
        "",
    ]
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    with tempfile.TemporaryDirectory() as name:
        for device in devices:
            lines += [*histogram_lines(measure_histograms(device, options.events, Path(name) / device.type)), ""]
            print("\n".join(lines), file=sys.stderr, flush=True)
        if options.repeats:
            root = [f"--data.root={options.root}"] if options.root else []
            recipe = ["--config", options.config, *root, f"--trainer.max_epochs={options.epochs}", *options.options]
            lines += measure_runs(recipe, options.repeats, Path(options.runs_dir or Path(name) / "runs"))
    text = "\n".join(lines).strip()
    print(text)
    if options.output is not None:
        Path(options.output).write_text(f"{text}\n")


if __name__ == "__main__":
    main()
