"""Measure the overhead of callbacks, as Markdown tables: histograms, and whole runs with and without callbacks.

python scripts/benchmark_callbacks.py --root data/cifar10 --output callbacks.md

Histograms of the weights and gradients of ResNet-18 are computed by the code of the callbacks, and by a loop over
``SummaryWriter.add_histogram`` as in tutorials, alternately; the script compares number, minimum and maximum of both.
Then a recipe is trained with all its callbacks and with none, alternating every few seconds, so that changes in the
speed of the machine affect both, and the final weights of both are compared. Whole runs are timed from the start of
``Trainer.fit`` until all files are written. CPU seconds are those of all threads of the process, which other processes
affect less. One more run, which is not timed, measures what each callback takes.
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
from unittest.mock import patch

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from measure import fit, hardware, now
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

import callbacks.base.drawing
from callbacks.base.steps import Step
from callbacks.tools.histogram import gather
from lightning_modules.networks import ResNet
from project.cli.cli import CLI

TURN = 5  # seconds that a run trains before it is paused for the other


def resnet18(device: torch.device) -> tuple[LightningModule, dict[str, Tensor]]:
    """Return a ResNet-18 after one backward pass, and its weights and gradients, 22 million values."""
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
    for tag, histogram in gather(tensors).items():
        writer.add_histogram_raw(tag, *histogram[:-1], global_step=step)


def log_each(writer: SummaryWriter, tensors: dict[str, Tensor], step: int) -> None:
    """Log histograms as tutorials do."""
    for tag, tensor in tensors.items():
        writer.add_histogram(tag, tensor, step)


def ranges_in(folder: Path) -> dict[str, tuple[float, float, float]]:
    """Return number, minimum and maximum of the last histogram of each tag; the buckets of both methods differ."""
    events = EventAccumulator(str(folder), {"histograms": 1}).Reload()
    last = {tag: events.Histograms(tag)[-1].histogram_value for tag in events.Tags()["histograms"]}
    return {tag: (value.num, value.min, value.max) for tag, value in last.items()}


def measure_histograms(device: torch.device, repeats: int, folder: Path) -> dict[str, Any]:
    """Return the seconds of each method to log histograms on a device, and whether both counted the same values."""
    module, tensors = resnet18(device)
    seconds: dict[str, list[float]] = defaultdict(list)
    ways = {
        "add_histogram in a loop": log_each,
        "callbacks.tools.histogram, transfer and log": log_gathered,
        "of which in the training thread": None,
    }
    with SummaryWriter(folder / "loop", max_queue=1000) as loop, SummaryWriter(folder / "ours", max_queue=1000) as ours:
        writers = {log_each: loop, log_gathered: ours}
        for step in range(repeats + 1):
            for name, way in ways.items():
                loop.flush()  # otherwise, the writer thread would delay the next method
                ours.flush()
                start = now()
                if way is None:
                    Step(step, module)
                else:
                    way(writers[way], tensors, step)
                if step:  # the first one is a warm-up
                    seconds[name].append(now() - start)
    return {
        "device": device.type,
        "tensors": len(tensors),
        "values": sum(map(Tensor.numel, tensors.values())),
        "equal": ranges_in(folder / "loop") == ranges_in(folder / "ours"),
        "seconds": dict(seconds),
    }


def histogram_lines(measured: dict[str, Any]) -> list[str]:
    """Return the result of ``measure_histograms`` as lines of Markdown."""
    baseline = measured["seconds"]["add_histogram in a loop"]
    lines = [
        f"Histograms of ResNet-18 on {measured['device']}: {measured['tensors']} tensors,",
        f"{measured['values']:,} values; n = {len(baseline)}, alternating.",
        f"Numbers, minima and maxima of both are {'equal' if measured['equal'] else 'NOT EQUAL'}.",
        "",
        "| method | milliseconds, median (min to max) | speed-up, median of ratios |",
        "|---|---|---|",
    ]
    for name, values in measured["seconds"].items():
        ratio = statistics.median(slow / fast for slow, fast in zip(baseline, values, strict=True))
        spread = f"{statistics.median(values) * 1e3:.1f} ({min(values) * 1e3:.1f} to {max(values) * 1e3:.1f})"
        lines.append(f"| {name} | {spread} | {ratio:.1f} |")
    return lines


class Clock(Callback):
    """Notify the parent process before the first batch, and read the clock of this process."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.cpu = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.connection.send("begin")
        self.cpu = time.process_time()


def train(args: list[str], folder: Path, weights: Path, connection: Connection) -> None:
    """Train in a child process, notify the parent of its start and end, and save the final weights."""
    os.setpgrp()  # DataLoader workers pause with it
    clock = Clock(connection)
    with redirect_stdout(StringIO()):
        cli = fit([*args, "--report=false", f"--runs_dir={folder}"], clock)
    now()
    cpu = time.process_time() - clock.cpu
    torch.save(cli.model.network.state_dict(), weights)
    connection.send((cpu, cli.trainer.current_epoch))


def measure_costs(args: list[str], folder: Path) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Train once in this process.

    Returns:
        For each callback: seconds in the training thread, CPU seconds of its drawings, and their number.
    """
    drawing: Counter[str] = Counter()
    drawings: Counter[str] = Counter()
    draw = callbacks.base.drawing.attempt

    def timed(name: str, *args: Any) -> None:
        start = time.thread_time()
        draw(name, *args)
        drawing[name] += time.thread_time() - start
        drawings[name] += 1

    with patch.object(callbacks.base.drawing, "attempt", timed), redirect_stdout(StringIO()):
        cli = fit([*args, "--report=false", "--trainer.profiler=simple", f"--runs_dir={folder}"], Callback())
    return costs(cli), drawing, drawings


def costs(cli: CLI) -> Counter[str]:
    """Return the seconds that each of the project's callbacks took in the training thread."""
    totals: Counter[str] = Counter()
    for action, durations in cli.trainer.profiler.recorded_durations.items():
        if action.startswith("[Callback]"):
            name = action.removeprefix("[Callback]").partition(".")[0].partition("{")[0]
            totals[name] += sum(durations)
    ours = {type(item).__name__ for item in cli.trainer.callbacks if type(item).__module__.startswith("callbacks.")}
    return Counter({name: seconds for name, seconds in totals.items() if name in ours})


def train_in_turn(args: list[str], folder: Path) -> dict[bool, tuple[float, float, int]]:
    """Train with all callbacks of a recipe and with none, alternating every TURN seconds.

    Returns:
        With callbacks and without: seconds without pauses; CPU seconds; epochs.
    """
    context = multiprocessing.get_context("spawn")
    pairs, processes = {}, {}
    for with_callbacks in (False, True):
        pairs[with_callbacks], theirs = context.Pipe()
        options = [] if with_callbacks else ["--callbacks=false"]
        weights = folder / f"{with_callbacks}.pt"
        process = context.Process(target=train, args=([*args, *options], folder / "runs", weights, theirs))
        process.start()
        processes[with_callbacks] = process
        pairs[with_callbacks].recv()  # it starts to train
        os.killpg(process.pid, signal.SIGSTOP)
    seconds = {False: 0.0, True: 0.0}
    results: dict[bool, tuple[float, float, int]] = {}
    try:
        while len(results) < 2:
            for which in seconds.keys() - results.keys():
                os.killpg(processes[which].pid, signal.SIGCONT)
                start = time.perf_counter()
                finished = pairs[which].poll(TURN)
                seconds[which] += time.perf_counter() - start
                if finished:
                    results[which] = (seconds[which], *pairs[which].recv())
                    processes[which].join()
                else:
                    os.killpg(processes[which].pid, signal.SIGSTOP)
    finally:
        for process in processes.values():
            process.kill()
    return results


def measure_runs(args: list[str], repeats: int, folder: Path) -> list[str]:
    """Return the results of whole runs as lines of Markdown."""
    measured: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    folder.mkdir(parents=True, exist_ok=True)
    for repeat in range(repeats):
        results = train_in_turn(args, folder)
        epochs = results[True][2]
        for with_callbacks, (seconds, cpu, _) in results.items():
            measured[with_callbacks].append((seconds, cpu))
            name = "on" if with_callbacks else "off"
            print(f"{repeat} callbacks {name}: {seconds:.1f} s, {cpu:.1f} CPU s", file=sys.stderr, flush=True)
    weights = {which: torch.load(folder / f"{which}.pt", weights_only=True) for which in (True, False)}
    same = all(torch.equal(tensor, weights[False][name]) for name, tensor in weights[True].items())
    lines = [
        f"`fit {' '.join(args)}`: {epochs} epochs, n = {repeats}, alternating every {TURN} s.",
        f"Weights of both at the end are {'equal to the bit' if same else 'NOT EQUAL'}.",
        "",
        "| callbacks | seconds, median (min to max) | over none | CPU seconds | over none |",
        "|---|---|---|---|---|",
    ]
    for with_callbacks, name in ((False, "none"), (True, "all of the recipe")):
        cells = []
        for what in (0, 1):
            values, none = ([each[what] for each in measured[which]] for which in (with_callbacks, False))
            ratios = [value / base for value, base in zip(values, none, strict=True)]
            cells += [spread(values, 1), spread(ratios, 3) if with_callbacks else "1"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    hooks, drawing, drawings = measure_costs(args, folder)
    lines += [
        "",
        "Milliseconds of a whole run that each callback took in the training thread, which draws on the CPU, and CPU",
        "milliseconds of its drawings:",
        "",
        "| callback | training thread | drawings | of drawings |",
        "|---|---|---|---|",
    ]
    for name in sorted(hooks | drawing, key=lambda name: -hooks[name] - drawing[name]):
        lines.append(f"| {name} | {hooks[name] * 1e3:.0f} | {drawings[name]} | {drawing[name] * 1e3:.0f} |")
    total = f"{hooks.total() * 1e3:.0f} | {drawings.total()} | {drawing.total() * 1e3:.0f}"
    return [*lines, f"| all | {total} |"]


def spread(values: list[float], digits: int) -> str:
    """Format median, minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main(args: list[str] | None = None) -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/resnet20.yaml", help="recipe of the whole runs")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each whole run")
    parser.add_argument("--repeats", type=int, default=1, help="whole runs with and without callbacks; 0 for none")
    parser.add_argument("--events", type=int, default=9, help="number of times to log histograms")
    parser.add_argument("--root", help="prepared data directory; default: that of the recipe")
    parser.add_argument("--runs_dir", help="directory of the runs; default: a temporary directory")
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
