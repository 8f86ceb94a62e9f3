"""Train with a tracker, resume and test, and compare with a run without it."""

from pathlib import Path

import torch

from project.__main__ import main
from project.runs.config import LAST

CALLBACKS = ["--callbacks=false", *(f"--callbacks.{name}=true" for name in ("histograms", "kernels", "class_report"))]
STEPS = ["--trainer.limit_train_batches=4", "--trainer.log_every_n_steps=1"]


def fit_resume_and_test(fast: list[str], runs_dir: Path, *tracker: str) -> Path:
    """Train an epoch with a tracker, resume for another one, and test; return the run directory."""
    run = main(["fit", *fast, *CALLBACKS, *STEPS, *tracker, "--trainer.max_epochs=1", f"--runs_dir={runs_dir}"]).run_dir
    main(["fit", f"--run={run}", "--trainer.max_epochs=2"])
    main(["test", f"--run={run}"])
    return run


def state(run: Path) -> str:
    """Return weights, optimizer and random states of the last checkpoint as text."""
    checkpoint = torch.load(run / LAST, weights_only=True)
    torch.set_printoptions(threshold=10**9, precision=12)
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
    return repr({key: checkpoint[key] for key in keys} | {"random": checkpoint["resume"]["random"]})
