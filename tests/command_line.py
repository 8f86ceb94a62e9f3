"""Helpers for tests of the command line."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from training import measured

from project.__main__ import main


def stop_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code and stderr of a command that fails."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(args)
    return stop.value.code, capsys.readouterr().err.replace("Seed set to 0\n", "")


def check_that_it_changes_nothing(command: str, fast: list[str], folder: Path) -> None:
    """Check that random states, and a following run, are as they are without a command."""
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    main([command, *fast, f"--runs_dir={folder}"])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    options = [*fast, "--callbacks=false", "--trainer.limit_train_batches=4"]
    after = main(["fit", *options, f"--runs_dir={folder / 'a'}"])
    random.seed(4)
    alone = main(["fit", *options, f"--runs_dir={folder / 'b'}"])
    assert measured(after.run_dir) == measured(alone.run_dir)
    for name, tensor in after.model.state_dict().items():
        assert torch.equal(tensor, alone.model.state_dict()[name])
