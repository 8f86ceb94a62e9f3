"""Helpers of the benchmarks: run ``fit`` with a callback, describe the hardware, and read a clock."""

import time
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, Trainer

import project.cli.cli
from project.__main__ import main
from project.runs.record import processor


def fit(args: list[str], callback: Callback) -> project.cli.cli.CLI:
    """Run ``fit`` with a callback before all other callbacks, which is not recorded in the config."""

    class CLI(project.cli.cli.CLI):
        def instantiate_trainer(self, **kwargs: object) -> Trainer:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.insert(0, callback)
            return trainer

    with patch.object(project.cli.cli, "CLI", CLI):
        return main(["fit", *args])


def hardware() -> str:
    """Return a description of the GPU, or of the CPU without one."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpu = processor()
    return f"{cpu['cores']} CPU cores ({cpu['cpu']}), {torch.get_num_threads()} threads"


def now() -> float:
    """Return the time in seconds, after synchronizing with the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
