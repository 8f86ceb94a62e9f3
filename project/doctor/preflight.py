"""Examine data, network, loss and optimizer before training: collect the facts on which a diagnosis is based."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_modules import ImageClassifier
from project.doctor.data_checks import data_facts
from project.doctor.images import SEEN, is_readable, labels_of, seen
from project.doctor.loss_checks import REPEATS, loss_facts, output_facts
from project.doctor.network_checks import (
    affinity,
    copies,
    evaluation_facts,
    gradient_facts,
    pixel_coverage,
    start_facts,
    symmetry,
)
from project.doctor.training_checks import (
    Trial,
    batch_norm_images,
    flops_of,
    optimizer_facts,
    planned,
    rows_of,
    schedule_facts,
    trial_facts,
)
from project.resume.rng import random_state, set_random_state

Facts = dict[str, Any]
IMAGES = 16  # of a trial
STEPS = ("training_step", "training_loss")
SECONDS = 25.0  # after which no further trial begins
QUICK, QUICK_GPU = 4e9, 1e11  # operations of a forward pass when all shall take 2 seconds: about 30 such passes
LEAST, SOME = 4, 100  # images of a quick examination, and those from which they are chosen


class PreFlight(Callback):
    """Examine everything when training would start, and end it before the first step.

    Args:
        quick: Examine only what takes at most 2 seconds: no trial of the optimizer, and no images.

    Attributes:
        facts: Plain numbers by name; a missing one could not be measured.
        failed: What could not be checked, with the reason.
    """

    def __init__(self, quick: bool = False) -> None:
        self.quick = quick
        self.facts: Facts = {}
        self.failed: dict[str, str] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # last, after Whitening and LoadPretrained have changed the weights
        trainer.callbacks = [each for each in trainer.callbacks if each is not self] + [self]  # type: ignore[attr-defined]  # set elsewhere

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.examine(trainer, pl_module)
        trainer.should_stop = True

    def examine(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect the facts, on copies, and restore the random states."""
        state, cudnn = random_state(), torch.backends.cudnn.benchmark
        try:
            torch.manual_seed(0)
            torch.backends.cudnn.benchmark = False
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of schedules without an optimizer step, and of self.log
                self._try("examination", lambda: self._examine(trainer, pl_module))
        finally:
            torch.backends.cudnn.benchmark = cudnn
            set_random_state(state)

    def _examine(self, trainer: Trainer, module: Any) -> None:
        cpu = time.thread_time()  # less affected by other processes than the time of day
        train = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]  # set elsewhere in Lightning
        if self.quick and not is_readable(train):  # it might start processes
            return
        if not self.quick:
            has_val = trainer.limit_val_batches != 0
            val = trainer.datamodule.val_dataloader() if has_val else None  # type: ignore[attr-defined]  # set elsewhere
            std = getattr(module, "std", None)
            self._try("data", lambda: data_facts(train, val, getattr(module, "mean", None), std))
        images, targets = balanced(train, SOME if self.quick else SEEN)
        images, targets = images.to(module.device), targets.to(module.device)
        if self.quick:
            count = int((QUICK if module.device.type == "cpu" else QUICK_GPU) / flops_of(module, images))
            images, targets = images[:count], targets[:count]
            if count < LEAST:
                self.failed["gradients"] = "the network is too large to examine it in 2 seconds"
                return
        classes = len(module.class_names) if isinstance(module, ImageClassifier) else None
        optimizer = trainer.optimizers[0] if len(trainer.optimizers) == 1 else None
        self.facts["batch_size"] = getattr(train, "batch_size", None)
        if self.facts["batch_size"] is not None:
            self.facts["batch_norm_images"] = batch_norm_images(module, self.facts["batch_size"])
        if optimizer is None or not module.automatic_optimization:
            self.failed["optimizer"] = "the module has several optimizers, or steps them itself"
            return
        warm: list[Any] = []

        def gradients() -> Facts:
            facts, twin = gradient_facts(module, optimizer, images, targets)
            warm.append(twin)
            return facts

        self._try("gradients", gradients)
        twin = copies(module)
        self._try("start", lambda: start_facts(twin, images))
        if warm:
            self._try("symmetry", lambda: symmetry(warm[0]))
        if classes is not None:
            self._try("loss", lambda: loss_facts(module.loss, classes, module.device))
            if warm:
                self._try("outputs", lambda: output_facts(twin, warm[0], images, targets))
                self._try("evaluation", lambda: evaluation_facts(warm[0], images))
                self._try("pixels", lambda: {"pixel_coverage": pixel_coverage(warm[0], images)})
                self._try("activation", lambda: {"affinity": affinity(warm[0], images)})
        self.facts["lr"] = optimizer.defaults.get("lr")
        plan = planned(trainer, module)
        if plan is None:
            self.failed["schedule"] = "the length of the training is unknown, or very long"
            plan = [rows_of(optimizer.param_groups)]
        else:
            self._try("schedule", lambda: schedule_facts(plan))
        if self.quick:
            return
        if self.facts.get("zero_in_first_half", 0.0) > 0.5:
            self.failed["trial"] = "the learning rate is almost zero"
        elif self.facts.get("loss_has_gradient") and self.facts.get("first_loss_finite"):
            scale = len_ratio(self.facts, self.facts.get("batch_size") or IMAGES, len(images))
            self._try("decay", lambda: optimizer_facts(module, optimizer, plan, (images, targets), scale))
            clip = trainer.gradient_clip_val if trainer.gradient_clip_algorithm != "value" else None
            bounds = self._bounds(module, classes, len(images))
            trial = Trial(module, optimizer, plan, (images, targets), scale, bounds, clip)
            self._try(
                "trial", lambda: trial_facts(trial, cpu + SECONDS, classes, self.facts.get("decay_per_step", 0.0))
            )

    def _try(self, name: str, check: Callable[[], Facts | None]) -> None:
        try:
            self.facts |= check() or {}
        except Exception as error:  # a network, loss or loader can raise any exception; the other checks go ahead
            self.failed[name] = f"{type(error).__name__}: {error}"

    def _bounds(self, module: Any, classes: int | None, count: int) -> tuple[float, float] | None:
        """Return the losses between which a trial is judged; None if the module computes its loss in its own way."""
        own = any(getattr(type(module), name) is not getattr(ImageClassifier, name, None) for name in STEPS)
        if classes is None or own or self.facts.get("loss_range", 0.0) < 0.05:
            return None
        scale = count / (REPEATS * classes) if self.facts["loss_of_twice_the_batch"] > 1.8 else 1.0
        return self.facts["equal_loss"] * scale, self.facts["best_loss"] * scale


def len_ratio(facts: Facts, batch: int, count: int) -> float:
    """Return the factor on the loss of ``count`` images that gives that of a batch: 1, except for sums."""
    return batch / count if facts.get("loss_of_twice_the_batch", 1.0) > 1.8 else 1.0


def balanced(loader: Any, most: int) -> tuple[Tensor, Tensor]:
    """Return a few of ``most`` training images, of all classes in turn, without transforms of batches, and classes."""
    batches = [*seen(loader, augmented=False, most=most)]
    images, targets = torch.cat([each for each, _ in batches]), labels_of(torch.cat([each for _, each in batches]))
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0)).to(targets.device)
    rank = torch.zeros_like(targets)
    for label in targets.unique():
        members = order[targets[order] == label]
        rank[members] = torch.arange(len(members), device=targets.device)
    chosen = rank.argsort(stable=True)[:IMAGES]
    return images[chosen], targets[chosen]
