"""Build a module from lines of a config and train it for a few steps."""

import csv
import textwrap
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from project.cli.parser import Parser

MODEL = """
class_path: lightning_modules.{name}
init_args:
  class_names: [a, b, c]
  mean: [0.5, 0.5, 0.5]
  std: [0.2, 0.2, 0.2]
  image_size: 32
"""
QUIET: dict[str, Any] = dict.fromkeys(
    ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
)
DEFAULTS = {
    "network": "lightning_modules.networks.LeNet",
    "optimizer": "{class_path: torch.optim.Adam, init_args: {lr: 0.002}}",
}


def module_of(name: str, yaml: str, repeat: bool = False) -> LightningModule:
    """Return the module that the command line's parser builds from a class of this project and YAML arguments.

    Args:
        name: The class.
        yaml: Its arguments; without a network or an optimizer, ``DEFAULTS``.
        repeat: Build it from the config that the parser writes.
    """
    parser = Parser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model", fail_untyped=False)
    yaml = textwrap.dedent(yaml)
    missing = [f"{key}: {value}\n" for key, value in DEFAULTS.items() if f"{key}:" not in yaml]
    lines = MODEL.format(name=name) + textwrap.indent("".join(missing) + yaml, "  ")
    config = parser.parse_string("model:\n" + textwrap.indent(lines, "  "))
    torch.manual_seed(0)
    return parser.instantiate(parser.parse_string(parser.dump(config)) if repeat else config).model


def batches(count: int = 4, size: int = 8, classes: int = 10) -> DataLoader:
    """Return a loader of ``count`` batches of random images."""
    images = torch.randn(count * size, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(count * size) % classes), size)


def trainer_of(epochs: int = 1, *callbacks: Callback, **options: Any) -> Trainer:
    """Return a Trainer on the CPU that writes and prints nothing."""
    return Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[*callbacks], **(QUIET | options))


class LossTrace(Callback):
    """Record the loss of each step."""

    def __init__(self) -> None:
        self.trace: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        self.trace.append(trainer.callback_metrics["train/loss_step"].item())


def trace(module: LightningModule, steps: int = 12, **options: Any) -> list[float]:
    """Train repeatedly on one batch of 24 images of three classes, and return the loss of each step."""
    torch.manual_seed(0)
    losses = LossTrace()
    trainer_of(steps, losses, log_every_n_steps=1, **options).fit(module, batches(1, 24, classes=3))
    return losses.trace


def measured(folder: Path) -> dict[str, float]:
    """Return the last value of each validation and test metric in the directory of a run or test."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = {name: [row[name] for row in rows if row[name]] for name in rows[0]}
    prefixes = ("val/", "test/")
    return {name: float(column[-1]) for name, column in values.items() if name.startswith(prefixes) and column}
