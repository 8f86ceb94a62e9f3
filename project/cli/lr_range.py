"""Suggest a learning rate from the loss at increasing ones (Smith, 2017, "Cyclical Learning Rates").

One factor multiplies the learning rates of all param groups, so that their proportions are kept.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities.seed import isolate_rng
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from project.cli.cli import CLI, run
from project.cli.match_data import match_data
from project.cli.progress import Progress
from project.errors import RunError
from project.runs.folders import create_folder

STEPS, LOW, HIGH = 300, 1e-4, 1e2  # of the optimizer; factors of the first and the last
SMOOTHING = 0.95  # share of the past in the smoothed loss
DIVERGED = 3.0  # times the lowest smoothed loss
FALL = 0.97  # share of the first loss below which it has fallen
FIRST = STEPS // 10  # steps that the first mean needs
SAFETY = 4.0  # the suggestion is this much below the factor with the lowest loss


class Ramp(Callback):
    """Multiply the learning rates of all groups by a factor that grows exponentially, until the loss diverges."""

    def __init__(self) -> None:
        self.factors: list[float] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._mean = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(trainer.optimizers) != 1 or not pl_module.automatic_optimization:
            raise RunError("Expected a module with one optimizer for find-lr, but it has several, or steps it itself.")
        self._rates = [group["lr"] for group in trainer.optimizers[0].param_groups]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._factor = LOW * (HIGH / LOW) ** (trainer.global_step / (STEPS - 1))
        for group, rate in zip(trainer.optimizers[0].param_groups, self._rates, strict=True):
            group["lr"] = rate * self._factor

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *rest: Any) -> None:
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches  # Lightning has divided it
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self.factors.append(self._factor)
        self.losses.append(loss)
        self.smoothed.append(self._mean / (1 - SMOOTHING ** len(self.losses)))
        trainer.should_stop = not math.isfinite(loss) or self.smoothed[-1] > DIVERGED * min(self.smoothed)


class FindLR(CLI):
    """``fit`` without a run directory, validation, schedule and callbacks, and with a ``Ramp``."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        if self.resume.file is not None:
            raise RunError("Expected no --run and no --ckpt_path for find-lr, because it begins with a new network.")
        match_data(self.datamodule, self.resume, self.trained, self.published)
        self.ramp = Ramp()
        self.model.make_scheduler = None  # of TrainableModule
        return LightningCLI.instantiate_trainer(self)

    def _instantiate_trainer(self, config: dict[str, Any], always: list[Callback]) -> Trainer:
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_model_summary", "fast_dev_run"), False)
        length = {"max_steps": STEPS, "max_epochs": -1, "max_time": None, "min_epochs": None, "min_steps": None}
        one = {"devices": 1, "num_nodes": 1, "strategy": "auto", "profiler": None, "limit_val_batches": 0}
        shown = [Progress()] if config["enable_progress_bar"] is not False else []
        return Trainer(**config | quiet | length | one | {"callbacks": [self.ramp, *shown, self.stopper]})

    def after_fit(self) -> None:
        """Do nothing: there is no run."""


def find_lr(args: list[str]) -> Path:
    """Draw the loss over the factor, print a suggestion, and return the picture's path."""
    with isolate_rng():
        cli = run(["fit", *args], FindLR)
    config, ramp = cli.config["fit"], cli.ramp  # type: ignore[attr-defined]  # of FindLR
    words, factor = suggestion(ramp.factors, ramp.smoothed, config.get("model.init_args.optimizer.init_args.lr"))
    path = create_folder(Path(config.runs_dir) / "find_lr") / "loss_over_factor.png"
    draw(ramp, factor, words).savefig(path)
    print(f"{words}\nPicture: {path}", flush=True)
    return path


def suggestion(factors: Sequence[float], smoothed: Sequence[float], lr: float | None) -> tuple[str, float | None]:
    """Return a suggestion in words, and its factor, given factor and smoothed loss of each step.

    The factor, which multiplies ``lr``, is None if the losses allow none.
    """
    losses = [value if math.isfinite(value) else math.inf for value in smoothed]
    if len(losses) < FIRST or losses[FIRST - 1] == math.inf:
        return f"The loss diverges at once, at factor {factors[-1]:.2g}. Use a much lower learning rate.", None
    lowest = min(range(FIRST - 1, len(losses)), key=losses.__getitem__)
    if losses[lowest] > FALL * losses[FIRST - 1]:
        return (
            f"The loss never falls from {losses[FIRST - 1]:.3g}, up to factor {factors[-1]:.2g}. Check data, "
            "labels and loss, or use another learning rate."
        ), None
    factor = float(f"{factors[lowest] / SAFETY:.1g}")
    rate = "" if lr is None else f", so --model.optimizer.lr {factor * lr:.2g}"
    return f"factor {factor:g}{rate}", factor


def draw(ramp: Ramp, factor: float | None, words: str) -> Figure:
    """Return a figure with the loss over the factor."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(ramp.factors, ramp.losses, color="0.8", label="loss")
    axes.plot(ramp.factors, ramp.smoothed, label="smoothed")
    if factor is not None:
        axes.axvline(factor, color="tab:orange", label=words)
    finite = [value for value in ramp.smoothed if math.isfinite(value)]
    axes.set(xscale="log", xlabel="factor on all learning rates", ylabel="training loss")
    if finite:
        axes.set_ylim(0.9 * min(finite), 1.1 * max(finite))
    axes.legend(title=None if factor is not None else words[:60])
    return figure
