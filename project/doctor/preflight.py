"""Examine data, network, loss and optimizer before training: collect the facts on which a diagnosis is based."""

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_modules import ImageClassifier
from project.doctor.causes import diagnose
from project.doctor.data_checks import MANY, data_facts, is_readable, labels_of, name_facts, seen
from project.doctor.loss_checks import output_facts, training_step_facts
from project.doctor.network_checks import copies, evaluation_facts, gradient_facts, start_facts, uphill
from project.doctor.symptoms import SUM, Facts, symptoms
from project.doctor.training_checks import (
    FLOPS,
    STEPS,
    Trial,
    batch_norm_images,
    flops_of,
    optimizer_facts,
    planned,
    schedule_facts,
    trial_facts,
)

IMAGES = 16  # of a trial
QUICK, QUICK_GPU, LEAST = 4e9, 1e11, 4  # operations of a forward pass and fewest images when all shall take 2 seconds
SECONDS = 12.0  # of this thread, after which no further trial begins; less affected by others than the time of day


class PreFlight(Callback):
    """Examine everything when training would start, and end it before the first step.

    Args:
        quick: Examine only what takes at most 2 seconds: no trial of the optimizer, and few images.

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
        benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
        with isolate_rng(), warnings.catch_warnings(action="ignore"):  # of schedules and self.log
            torch.manual_seed(0)
            self._try("examination", lambda: self._examine(trainer, pl_module))
        torch.backends.cudnn.benchmark = benchmark

    def _examine(self, trainer: Trainer, module: Any) -> None:
        deadline = time.thread_time() + SECONDS
        train = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]  # set elsewhere in Lightning
        if self.quick and not is_readable(train):  # it might start processes
            return
        is_cached = getattr(getattr(train, "dataset", None), "pixels", None) is not None
        if not self.quick or is_cached:
            val = trainer.datamodule.val_dataloader() if trainer.limit_val_batches != 0 else None  # type: ignore[attr-defined]  # set elsewhere
            self._try("data", lambda: data_facts(train, val, self.quick))
        if len(trainer.optimizers) != 1 or not module.automatic_optimization:
            self.failed["optimizer"] = "the module has several optimizers, or steps them itself"
            return
        optimizer, batch = trainer.optimizers[0], getattr(train, "batch_size", None) or IMAGES
        self.facts |= {"lr": optimizer.defaults.get("lr"), "batch_norm_images": batch_norm_images(module, batch)}
        classes = len(module.class_names) if isinstance(module, ImageClassifier) else None
        images, targets = (each.to(module.device) for each in balanced(train, 2 * IMAGES if self.quick else MANY))
        if classes is not None:
            self.facts |= name_facts(module.class_names)
            self._try("loss", lambda: training_step_facts(module, images, targets))
        twin, _ = copies(module)
        flops = flops_of(twin, images)
        if self.quick:
            count = int((QUICK if module.device.type == "cpu" else QUICK_GPU) / flops)
            images, targets = images[:count], targets[:count]
            if count < LEAST:
                self.failed["gradients"] = "the network is too large to examine it in 2 seconds"
                return
        self._try("start", lambda: start_facts(twin, images))

        def trained() -> Iterator[Facts]:
            facts, warm = gradient_facts(module, optimizer, images, targets)
            yield facts
            if classes is not None:
                yield output_facts(twin, warm, images, targets)
                yield from evaluation_facts(warm, images)

        self._try("gradients", trained)
        self._try("optimizer", lambda: uphill(module, optimizer, images, targets))
        plan = planned(trainer)
        if len(plan) == 1:
            self.failed["schedule"] = "the length of the training is unknown, or very long"
        self._try(
            "schedule",
            lambda: schedule_facts(plan) | optimizer_facts(optimizer, plan, self.facts.get("own_decay", 0.0)),
        )
        if self.quick or any(each.confidence == "sure" for each in diagnose(symptoms(self.facts))):
            return  # what a trial shows is a consequence
        # a sum over few images is smaller than over a batch
        scale = batch / len(images) if self.facts.get("loss_of_twice_the_batch", 1.0) > SUM else 1.0
        clip, by_value = trainer.gradient_clip_val, trainer.gradient_clip_algorithm == "value"
        steps = int(min(max(FLOPS / (3 * flops * len(images)), STEPS[0]), STEPS[1]))  # fewer for a large network
        trial = Trial(module, optimizer, plan, steps, images, targets, scale, clip, by_value)
        self._try("trial", lambda: trial_facts(trial, deadline, classes))

    def _try(self, name: str, check: Callable[[], Facts | Iterator[Facts] | None]) -> None:
        try:
            found = check() or {}
            for facts in [found] if isinstance(found, dict) else found:  # what comes before an exception counts
                self.facts |= facts
        except Exception as error:  # a network, loss or loader can raise any exception; the other checks go ahead
            self.failed[name] = f"{type(error).__name__}: {error}"


def balanced(loader: Any, most: int) -> tuple[Tensor, Tensor]:
    """Return a few training images of all classes in turn, without transforms of whole batches, and their classes."""
    images, targets = map(torch.cat, zip(*seen(loader, False, most), strict=True))
    targets = labels_of(targets)
    rank = F.one_hot(targets).cumsum(0).gather(1, targets[:, None])[:, 0]  # how many of its class come before
    chosen = rank.argsort(stable=True)[:IMAGES]
    return images[chosen], targets[chosen]
