"""What benchmarks share: a run of ``fit`` that is watched, the machine in words, and a clock."""

import time
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, Trainer

import project.cli.cli
from project.__main__ import main
from project.runs.record import processor


def fit(args: list[str], callback: Callback) -> project.cli.cli.CLI:
    """Run ``fit`` with a callback before all others, of which neither the config nor the run's folder knows."""

    class CLI(project.cli.cli.CLI):
        def instantiate_trainer(self, **kwargs: object) -> Trainer:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.insert(0, callback)
            return trainer

    with patch.object(project.cli.cli, "CLI", CLI):
        return main(["fit", *args])


def hardware() -> str:
    """Return the machine in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    found = processor()
    return f"{found['cores']} CPU cores ({found['cpu']}), {torch.get_num_threads()} threads"


def now() -> float:
    """Return seconds on a clock, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
