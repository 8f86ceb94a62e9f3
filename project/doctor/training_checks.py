"""Facts about optimizer and schedule: a dry run of the schedule, and short trials on copies of the module."""

import copy
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.flop_counter import FlopCounterMode

from project.doctor.network_checks import batch_statistics, copies, loss_of, weight_layers

Facts = dict[str, Any]
Plan = list[list[dict[str, Any]]]  # what a schedule sets in each group at each step
SCHEDULED = ("lr", "momentum", "betas")
MOST_STEPS = 100_000  # that a dry run takes
FEW, MANY = 20, 150  # steps of a trial
FLOPS = 4e11  # of a trial: some seconds on two cores
LEARNS = 0.3  # of the loss that can be removed: a trial that removes more has learned
FACTORS = {
    "down": (1 / 3, 0.1, 0.03, 0.01, 3e-3, 1e-3),
    "up": (3, 10, 100, 1e3, 1e4, 1e5),
}  # on the learning rate
ENOUGH = 0.7  # a trial that cannot get worse later ends
UNUSUAL_DECAY = 0.01  # of a weight in a step; .002 for a ResNet
NEAR_ZERO = 0.01  # of the peak


def planned(trainer: Trainer, module: Any) -> Plan | None:
    """Return learning rates and momenta of all steps, without a plateau schedule; None if their number is unknown."""
    steps = trainer.estimated_stepping_batches
    if not 0 < steps <= MOST_STEPS:
        return None
    groups = trainer.optimizers[0].param_groups
    plan: Plan = [rows_of(groups)] * int(steps)
    if trainer.lr_scheduler_configs and not trainer.lr_scheduler_configs[0].reduce_on_plateau:
        config = trainer.lr_scheduler_configs[0]
        scheduler: Any = copy.deepcopy(config.scheduler)
        epoch = max(int(trainer.num_training_batches) // trainer.accumulate_grad_batches, 1)
        every = (1 if config.interval == "step" else epoch) * config.frequency
        plan = []
        for step in range(1, int(steps) + 1):
            plan.append(rows_of(scheduler.optimizer.param_groups))
            if step % every == 0 and step < steps:
                scheduler.step()
    own = {each.name: each for each in getattr(module, "groups", []) if each.rule.schedule is not None}
    for index, group in enumerate(groups):
        if rule := own.get(group.get("name")):
            plan = [[*rows] for rows in plan]
            for step, rows in enumerate(plan):
                rows[index] = rows[index] | {"lr": rule.lr * rule.rule.schedule(step / len(plan))}
    return plan


def rows_of(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the scheduled options of each group."""
    return [{key: group[key] for key in SCHEDULED if key in group} for group in groups]


def schedule_facts(plan: Plan) -> Facts:
    """Return the shape of a schedule: the mean over groups of the learning rate relative to its peak."""
    table = torch.tensor([[row["lr"] for row in rows] for rows in plan], dtype=torch.float64)
    peaks = table.amax(0)
    facts: Facts = {"planned_steps": len(plan)}
    if len(plan) < FEW or not peaks.any():
        return facts
    shape = (table[:, peaks > 0] / peaks[peaks > 0]).mean(1)
    facts["peak_at"] = int((shape > 0.99 * shape.max()).nonzero()[0]) / len(shape)
    facts["zero_in_first_half"] = float((shape[: len(shape) // 2] < NEAR_ZERO).float().mean())
    facts["end_of_peak"] = float(shape[-1] / shape.max())
    facts["is_constant"] = float(shape.max() - shape.min() < 1e-9)
    return facts


class Trial:
    """Train copies for a few steps with the planned learning rates in time lapse, always on the same images.

    Args:
        module: Module to copy.
        optimizer: Its optimizer, in its initial state.
        plan: Planned learning rates and momenta.
        images: Images and targets, all in one batch.
        batch_size: Images in a real batch, for losses that are sums.
        bounds: Loss of the best constant output, and of right outputs; None if they are unknown.
        clip: Norm to which gradients are clipped.
    """

    def __init__(
        self,
        module: Any,
        optimizer: Any,
        plan: Plan,
        images: tuple[Tensor, Tensor],
        scale: float = 1.0,
        bounds: tuple[float, float] | None = None,
        clip: float | None = None,
    ) -> None:
        self.module, self.optimizer, self.plan = module, optimizer, plan
        self.images, self.targets = images
        self.scale, self.bounds, self.clip = scale, bounds, clip
        flops = 3 * flops_of(module, self.images) * len(self.images)
        self.steps = int(min(max(FLOPS / flops, FEW), MANY))

    def run(self, factor: float = 1.0, change: dict[str, Any] | None = None, adam: float | None = None) -> Facts:
        """Return the progress of the loss, from 0 to 1, and the accuracy on the images at the end.

        Args:
            factor: Factor on the learning rates.
            change: Options of all groups to change; "clip" is the norm of gradients.
            adam: Learning rate of an Adam that replaces the optimizer.
        """
        change = change or {}
        torch.manual_seed(0)
        module, optimizer = without_dropout(*copies(self.module, self.optimizer))
        clip, plan = change.get("clip", self.clip), self.plan
        if adam is not None:
            optimizer = torch.optim.Adam([each for each in module.parameters() if each.requires_grad], adam)
            clip, plan = None, [rows_of(optimizer.param_groups)]
        losses: list[float] = []
        for step in range(self.steps):
            for group, row in zip(optimizer.param_groups, plan[step * len(plan) // self.steps], strict=True):
                group.update(row | {key: value for key, value in change.items() if key in group})
                group["lr"] = row["lr"] * factor
            optimizer.zero_grad()
            loss = loss_of(module, self.images, self.targets)
            losses.append(float(loss))
            if not math.isfinite(losses[-1]) or ((adam or factor > 1) and self._progress(losses) > ENOUGH):
                break
            (loss * (1 if adam else self.scale)).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimizer.step()
        facts = {"progress": self._progress(losses), "accuracy": 0.0, "first": losses[0], "last": losses[-1]}
        with torch.no_grad(), batch_statistics(module):
            outputs = module(self.images)
        if outputs.ndim == 2 and outputs.isfinite().all():
            facts["accuracy"] = float((outputs.argmax(1) == self.targets).float().mean())
        return facts | {"twin": module, "twin_optimizer": optimizer}

    def _progress(self, losses: Sequence[float]) -> float:
        last = sum(losses[-3:]) / len(losses[-3:])
        if not math.isfinite(last):
            return -1.0
        start, best = self.bounds or (losses[0], 0.0)
        scale = start - best if self.bounds else abs(start)
        return min(max((start - last) / max(scale, 1e-12), -1.0), 1.0)


def flops_of(module: Any, images: Tensor) -> float:
    """Return the operations of a forward pass of one image."""
    twin = copies(module)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), batch_statistics(twin):
        twin(images[:2])
    return max(counter.get_total_flops() / 2, 1.0)


def without_dropout(module: Any, optimizer: Any) -> tuple[Any, Any]:
    """Switch the dropout of a copy off, which would make its loss random and its first steps slow."""
    for each in module.modules():
        if isinstance(each, _DropoutNd):
            each.eval()
    return module, optimizer


def trial_facts(trial: Trial, deadline: float, classes: int | None, decay: float) -> Facts:
    """Return what the user's optimizer learns in a trial and, if that is nothing, what would learn.

    Args:
        trial: The trial.
        deadline: Value of ``time.thread_time`` after which no further trial begins.
        classes: Number of classes; None if the module is not a classifier.
        decay: Share of a weight that its decay removes in a step.
    """
    own = trial.run()
    facts: Facts = {"trial_progress": own["progress"], "trial_steps": trial.steps, "trial_images": len(trial.images)}
    facts["trial_first_loss"], facts["trial_last_loss"] = own["first"], own["last"]
    best = own
    if own["progress"] < LEARNS:
        for lr in (1e-3, 1e-2):
            if time.thread_time() < deadline and facts.get("adam_progress", -1.0) < LEARNS:
                best = max(best, trial.run(adam=lr), key=lambda result: result["progress"])
                facts["adam_progress"] = best["progress"]
    if classes and best["progress"] > 0.5:
        facts["memorized"] = (best["accuracy"] - 1 / classes) / (1 - 1 / classes)
    if own["progress"] < LEARNS and best["progress"] > LEARNS:
        facts |= repair_facts(trial, deadline, decay)
    return facts


def repair_facts(trial: Trial, deadline: float, decay: float) -> Facts:
    """Return which change of one setting lets the user's optimizer learn, and how much."""
    groups = trial.optimizer.param_groups
    facts: Facts = {}

    changes: dict[str, dict[str, Any]] = {}
    if decay > UNUSUAL_DECAY:
        changes["weight_decay"] = {"weight_decay": 0.0}
    if any(group.get("eps", 0) > 1e-6 for group in groups):
        changes["eps"] = {"eps": 1e-8}
    if trial.clip:
        changes["clip"] = {"clip": 0.0}
    # settings that are usual are not at fault
    facts |= {f"repair_{name}": 0.0 for name in ("weight_decay", "eps", "clip")}
    for name, change in changes.items():
        facts[f"repair_{name}"] = max(trial.run(change=change)["progress"], 0.0)
    for way, factors in FACTORS.items():
        for factor in factors if "repair_factor_down" not in facts else ():
            if time.thread_time() > deadline:
                return facts
            if trial.run(factor)["progress"] > LEARNS:
                facts[f"repair_factor_{way}"] = factor
                break
    facts["lr_excess"] = 1 / facts.get("repair_factor_down", 1.0)
    facts["lr_shortfall"] = facts.get("repair_factor_up", 0.0) * trial.steps / len(trial.plan)
    return facts


def momentum_of(group: dict[str, Any]) -> float:
    """Return the momentum of a group of any optimizer of torch."""
    return float(group.get("momentum", group.get("betas", (0.0,))[0]))


def optimizer_facts(module: Any, optimizer: Any, plan: Plan, images: tuple[Tensor, Tensor], scale: float) -> Facts:
    """Return the momentum, and by how much one step at the peak learning rate decays the weights."""
    momenta = sorted(max(map(momentum_of, rows)) for rows in plan)
    facts: Facts = {"momentum": momenta[len(momenta) // 2]}
    if not any(group.get("weight_decay") for group in optimizer.param_groups):
        return facts
    peaks = [max(row["lr"] for row in rows) for rows in zip(*plan, strict=True)]
    ends = []
    for keep in (1.0, 0.0):
        twin, own = without_dropout(*copies(module, optimizer))
        for group, peak in zip(own.param_groups, peaks, strict=True):
            group["lr"], group["weight_decay"] = peak, group.get("weight_decay", 0.0) * keep
        (loss_of(twin, *images) * scale).backward()
        own.step()
        ends.append({name: layer.weight.detach() for name, layer in weight_layers(twin).items()})
    decays = []
    for name, layer in weight_layers(module).items():
        before, change = layer.weight.detach(), ends[0][name] - ends[1][name]
        update = ends[1][name] - before
        if change.any() and update.any():
            decays.append(float(-(change * before).sum() / before.pow(2).sum().clamp_min(1e-30)))
    if decays:
        # momentum accumulates the decay
        momentum = max(float(group.get("momentum", 0.0)) for group in optimizer.param_groups)
        facts["decay_per_step"] = max(decays) / (1 - min(momentum, 0.999))
    return facts


def batch_norm_images(module: Any, batch_size: int) -> float:
    """Return the images over which batch norm computes its statistics in training; infinity without batch norm."""
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm) and each.training]
    return batch_size if norms else math.inf
