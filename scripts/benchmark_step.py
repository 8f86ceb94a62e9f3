"""Benchmark a training step of this project against a bare PyTorch loop, interleaved in one run, as a Markdown table.

python scripts/benchmark_step.py --output step.md

The project trains with its recipe: TensorBoard and CSV logs, metrics, progress bar, checkpoints, learning rate monitor
and the recipe's callbacks, which "without callbacks" leaves out. The bare loop has the same batches, initial weights,
optimizer and schedule, but logs nothing; the script compares the final weights of both. "Lightning barebones" is a
Trainer that logs nothing. In every repeat, each of them trains once, and ratios are computed within a repeat, so that
other load on the machine affects all. The first epoch and validation are excluded.
"""

import argparse
import math
import os
import pickle
import platform
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from io import StringIO
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import lightning
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from measure import fit, hardware, now
from torch import Tensor, nn

from datamodules.preparation.cifar10_archive import BATCHES
from lightning_modules.networks import LeNet, ResNet


class Recipe(NamedTuple):
    """A network, and the settings of its config that the bare loop needs and that differ between recipes."""

    options: list[str]
    make_network: Callable[[], nn.Module]
    lr: float
    weight_decay: float
    channels_last: bool = True


RECIPES = {
    "lenet": Recipe(["--config=configs/lenet.yaml"], lambda: LeNet(10), 0.05, 1e-4, channels_last=False),
    "resnet20": Recipe(["--config=configs/resnet20.yaml"], lambda: ResNet(10, 20), 0.1, 5e-4),
    "resnet18": Recipe(
        ["--config=configs/resnet20.yaml", "--model.network.init_args.depth=18"], lambda: ResNet(10, 18), 0.1, 5e-4
    ),
}
PROJECT, ALONE, BAREBONES, BARE = "this project", "without callbacks", "Lightning barebones", "bare loop"


class Stopwatch:
    """Measures seconds of steps and of whole epochs.

    Attributes:
        steps: Mean seconds of a step in each epoch, from the second batch to the last: excludes the start and end of an
            epoch, but includes logging every few steps.
        epochs: Seconds of each epoch divided by its steps, from its start to that of the next epoch.
    """

    def __init__(self, steps: int) -> None:
        self.length = steps
        self.steps: list[float] = []
        self._begins: list[float] = []
        self._second = 0.0

    @property
    def epochs(self) -> list[float]:
        return [(after - before) / self.length for before, after in pairwise(self._begins)]

    def epoch(self) -> None:
        """Record the start of an epoch, or the end of the last one."""
        self._begins.append(now())

    def batch(self, batch_idx: int) -> None:
        """Record the start of a step, when its batch is loaded."""
        if batch_idx == 1:
            self._second = now()
        elif batch_idx == self.length - 1:
            self.steps.append((now() - self._second) / (self.length - 2))


class Watch(Callback):
    """Run a stopwatch in a Trainer, and store the initial weights."""

    def __init__(self, steps: int) -> None:
        self.stopwatch = Stopwatch(steps)
        self.start: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = {name: tensor.clone() for name, tensor in pl_module.network.state_dict().items()}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stopwatch.epoch()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self.stopwatch.batch(batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stopwatch.epoch()


def bare_loop(name: str, loader: Iterable, start: dict[str, Tensor], steps: int, epochs: int) -> tuple[Stopwatch, dict]:
    """Train with a plain PyTorch loop, and return the stopwatch and the final weights."""
    recipe = RECIPES[name]
    network = recipe.make_network().to(loader.device)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)
    network.load_state_dict(start)
    network.train()
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, steps * epochs)
    criterion = nn.CrossEntropyLoss()
    stopwatch = Stopwatch(steps)
    for epoch in range(epochs):
        stopwatch.epoch()
        loader.set_epoch(epoch)
        for i, (images, targets) in enumerate(islice(loader, steps)):
            stopwatch.batch(i)
            if recipe.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            loss = criterion(network(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    stopwatch.epoch()
    return stopwatch, network.state_dict()


def measure(name: str, data: list[str], folder: Path, steps: int, epochs: int) -> tuple[dict[str, Stopwatch], float]:
    """Train a recipe's network with all methods.

    Returns:
        A stopwatch for each method, and the largest difference between weights of the project and of the bare loop.
    """
    options = [f"--trainer.max_epochs={epochs}", f"--trainer.limit_train_batches={steps}", f"--runs_dir={folder}"]
    # without validation, there is no val/acc to select the checkpoint by
    options += ["--trainer.limit_val_batches=0", "--checkpoint.monitor=train/acc"]
    watch = Watch(steps)
    options = [*RECIPES[name].options, *data, *options]
    alone = Watch(steps)
    with redirect_stdout(StringIO()):  # the progress bar is still drawn, see main
        fit([*options, "--callbacks=false"], alone)
        cli = fit(options, watch)
    if len(watch.stopwatch.steps) < epochs:
        raise SystemExit(f"Expected {steps} batches or more in an epoch, but --root has fewer. Reduce --steps.")
    trained = {key: tensor.cpu() for key, tensor in cli.model.network.state_dict().items()}
    bare, weights = bare_loop(name, cli.datamodule.train_dataloader(), watch.start, steps, epochs)
    pairs = [(trained[key].double(), value.cpu().double()) for key, value in weights.items()]
    difference = max((ours - theirs).abs().max().item() for ours, theirs in pairs)
    barebones = Watch(steps)
    cli.model.network.load_state_dict(watch.start)
    with redirect_stdout(StringIO()):
        Trainer(
            barebones=True, max_epochs=epochs, limit_train_batches=steps, limit_val_batches=0, callbacks=[barebones]
        ).fit(cli.model, cli.datamodule)
    return {PROJECT: watch.stopwatch, ALONE: alone.stopwatch, BARE: bare, BAREBONES: barebones.stopwatch}, difference


def write_archive(folder: Path, images: int) -> Path:
    """Write CIFAR-10's batch files with random pixels, with at least ``images`` training images."""
    each = 10 * math.ceil(images / 0.9 / 5 / 10)  # a tenth of each of the five files is for validation
    numbers = np.random.default_rng(0)
    folder.mkdir()
    for name in BATCHES:
        pixels = numbers.integers(0, 256, (each, 3072), np.uint8)
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": list(range(10)) * (each // 10)}))
    return folder


def rows_of(name: str, repeats: list[dict[str, Stopwatch]]) -> list[str]:
    """Return the rows of a network."""
    figures: dict[str, dict[str, list[float]]] = {who: defaultdict(list) for who in (BARE, BAREBONES, ALONE, PROJECT)}
    for stopwatches in repeats:
        for who, stopwatch in stopwatches.items():
            for what, seconds in (("steps", stopwatch.steps), ("epochs", stopwatch.epochs)):
                figures[who][what].append(statistics.median(seconds[1:]))
    lines = []
    for who, figure in figures.items():
        cells = []
        for what in ("steps", "epochs"):
            ratios = [value / bare for value, bare in zip(figure[what], figures[BARE][what], strict=True)]
            least = min(figure[what]) / min(figures[BARE][what])
            low, high = min(figure[what]) * 1e3, max(figure[what]) * 1e3
            cells.append(f"{statistics.median(figure[what]) * 1e3:.2f} ({low:.2f} to {high:.2f})")
            cells.append("1" if who == BARE else f"{statistics.median(ratios):.3f} ({least:.3f})")
        lines.append(f"| {name} | {who} | {' | '.join(cells)} |")
    return lines


def main(args: list[str] | None = None) -> None:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(RECIPES), default=["lenet", "resnet20"])
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=100, help="steps per epoch; a recipe logs every 50")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each repeat; the first is excluded")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--root", help="prepared directory of CIFAR-10; default: random images")
    parser.add_argument("--output", help="file to write the table to, besides printing it")
    options = parser.parse_args(args)
    if options.steps < 3 or options.epochs < 2 or options.repeats < 1:
        parser.error("Expected at least 3 --steps, 2 --epochs and 1 --repeats: the first step and epoch are excluded.")
    os.environ |= {"FORCE_COLOR": "1", "TERM": "xterm-256color"}  # rich draws a progress bar only on a terminal

    lines = [
        f"{hardware()}; Python {platform.python_version()}, torch {torch.__version__}, lightning",
        f"{lightning.__version__}. Batch {options.batch_size}; median of {options.repeats} alternating repeats, each",
        f"the median of {options.epochs - 1} epochs of {options.steps} steps. Milliseconds per step; in brackets min "
        "to max, and the ratio of the minima.",
        "",
        "| network | method | step, ms | over bare | whole epochs, ms per step | over bare |",
        "|---|---|---|---|---|---|",
    ]
    differences = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = [f"--data.batch_size={options.batch_size}", "--data.drop_last=true"]
        if options.root is None:
            archive = write_archive(folder / "cifar-10-batches-py", options.steps * options.batch_size)
            data += [f"--data.root={folder / 'data'}", f"--data.archive={archive}"]
        else:
            data += [f"--data.root={options.root}"]
        for network in options.networks:
            repeats = []
            for repeat in range(options.repeats):
                stopwatches, difference = measure(network, data, folder / "runs", options.steps, options.epochs)
                repeats.append(stopwatches)
                differences.append(difference)
                times = ", ".join(
                    f"{who} {min(stopwatch.steps[1:]) * 1e3:.2f} ms" for who, stopwatch in stopwatches.items()
                )
                print(f"{repeat} {network}: {times}", file=sys.stderr, flush=True)
            lines += rows_of(network, repeats)
    lines += [
        "",
        f"Weights of the project and of the bare loop differ by at most {max(differences):.2g} at the end.",
    ]
    text = "\n".join(lines)
    print(text)
    if options.output is not None:
        Path(options.output).write_text(f"{text}\n")


if __name__ == "__main__":
    main()
