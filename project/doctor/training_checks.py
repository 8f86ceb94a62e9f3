"""Facts about optimizer and schedule: a dry run of the schedule, and short trials on copies of the module."""

import copy
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.flop_counter import FlopCounterMode

from project.doctor.network_checks import copies, loss_of, use_batch_statistics
from project.doctor.symptoms import Facts

Plan = list[list[dict[str, Any]]]  # what a schedule sets in each group at each step
SCHEDULED = ("lr", "momentum", "betas")
MOST_STEPS = 100_000  # that a dry run takes
STEPS = 20, 100  # of a trial, at least and at most
FLOPS = 3e11  # of a trial: some seconds on two cores
LEARNS = 0.3  # of the loss that can be removed: a trial that removes more has learned
FACTORS = (1 / 3, 0.1, 0.01, 1e-3, 1e-5, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e8)  # on the learning rate
ENOUGH = 0.7  # a trial with a constant or higher rate ends
NEAR_ZERO = 0.01  # of the peak


def planned(trainer: Trainer) -> Plan:
    """Return learning rates and momenta of all steps, without a plateau schedule; of one if their number is unknown."""
    steps = trainer.estimated_stepping_batches
    plan = [rows_of(trainer.optimizers[0].param_groups)]
    if not 0 < steps <= MOST_STEPS:
        return plan
    configs = trainer.lr_scheduler_configs
    if not configs or configs[0].reduce_on_plateau:
        return plan * int(steps)
    scheduler: Any = copy.deepcopy(configs[0].scheduler)
    epoch = max(int(trainer.num_training_batches) // trainer.accumulate_grad_batches, 1)
    every = (1 if configs[0].interval == "step" else epoch) * configs[0].frequency
    for step in range(1, int(steps)):
        if step % every == 0:
            scheduler.step()
        plan.append(rows_of(scheduler.optimizer.param_groups))
    return plan


def rows_of(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the scheduled options of each group."""
    return [{key: group[key] for key in SCHEDULED if key in group} for group in groups]


def schedule_facts(plan: Plan) -> Facts:
    """Return the shape of a schedule: the mean over groups of the learning rate relative to its peak."""
    table = torch.tensor([[row["lr"] for row in rows] for rows in plan], dtype=torch.float64)
    peaks = table.amax(0)
    facts: Facts = {"planned_steps": len(plan)}
    if len(plan) < STEPS[0] or not peaks.any():
        return facts
    shape = (table[:, peaks > 0] / peaks[peaks > 0]).mean(1)
    return facts | {
        "peak_at": int((shape > 0.99 * shape.max()).nonzero()[0]) / len(shape),
        "zero_in_first_half": float((shape[: len(shape) // 2] < NEAR_ZERO).float().mean()),
        "end_of_peak": float(shape[-1] / shape.max()),
    }


def flops_of(twin: Any, images: Tensor) -> float:
    """Return the floating-point operations of a forward pass of one image through a copy."""
    use_batch_statistics(twin)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(images[:2].clone())
    return max(counter.get_total_flops() / 2, 1.0)


class Trial(NamedTuple):
    """A training of copies for a few steps, always on the same images, with the planned rates in time lapse."""

    module: Any
    optimizer: Any
    plan: Plan
    steps: int
    images: Tensor
    targets: Tensor
    scale: float  # factor on losses that are sums over a larger batch
    clip: float | None  # limit of the norm of gradients
    by_value: bool  # or of their values

    def changed(self, factor: float = 1.0, **options: Any) -> "Trial":
        """Return a trial with a factor on the learning rates, and other options of the optimizer."""
        return self._replace(plan=[[row | options | {"lr": row["lr"] * factor} for row in rows] for rows in self.plan])

    def by_adam(self, lr: float) -> "Trial":
        """Return a trial with Adam instead of the optimizer."""
        adam = torch.optim.Adam([each for each in self.module.parameters() if each.requires_grad], lr)
        return self._replace(optimizer=adam, plan=[rows_of(adam.param_groups)], clip=None, scale=1.0)

    def run(self, enough: float = math.inf) -> tuple[float, float]:
        """Return which part of the loss was removed, -1 to 1, and the accuracy on the images; ends if it is enough."""
        torch.manual_seed(0)
        module, optimizer = copies(self.module, self.optimizer)
        for each in module.modules():
            if isinstance(each, _DropoutNd):
                each.eval()  # it would make the loss random and the first steps slow
        losses: list[float] = []
        for step in range(self.steps):
            rows = self.plan[step * len(self.plan) // self.steps]
            for group, row in zip(optimizer.param_groups, rows, strict=True):
                group.update(row)
            optimizer.zero_grad()
            loss = loss_of(module, self.images, self.targets)
            losses.append(float(loss))
            if not math.isfinite(losses[-1]) or removed(losses) > enough:
                break
            (loss * self.scale).backward()
            if self.clip:
                limit = nn.utils.clip_grad_value_ if self.by_value else nn.utils.clip_grad_norm_
                limit(module.parameters(), self.clip)
            optimizer.step()
        use_batch_statistics(module)
        with torch.no_grad():
            outputs = module(self.images.clone())
        accuracy = float((outputs.argmax(1) == self.targets).float().mean()) if outputs.ndim == 2 else 0.0
        return removed(losses), accuracy


def removed(losses: list[float]) -> float:
    """Return which part of a loss was removed, -1 to 1."""
    last = sum(losses[-3:]) / len(losses[-3:])
    return min(max((losses[0] - last) / max(abs(losses[0]), 1e-12), -1.0), 1.0) if math.isfinite(last) else -1.0


def trial_facts(trial: Trial, deadline: float, classes: int | None) -> Iterator[Facts]:
    """Yield what the user's optimizer learns in a trial and, if that is nothing, what would learn.

    No further trial begins after ``time.thread_time`` has reached a deadline.
    """
    best = trial.run()
    progress = best[0]
    yield {"trial_progress": progress, "trial_images": len(trial.images)}
    for lr in (1e-3, 1e-2):
        if best[0] < LEARNS and time.thread_time() < deadline:
            best = max(best, trial.by_adam(lr).run(ENOUGH))
            yield {"adam_progress": best[0]}
    if classes and best[0] > 0.5:
        yield {"memorized": (best[1] - 1 / classes) / (1 - 1 / classes)}
    if progress >= LEARNS or best[0] < LEARNS:
        return
    for name, usual, repair in (("clip", 0.0, 0.0), ("weight_decay", 0.01, 0.0), ("eps", 1e-6, 1e-8)):
        now = max(({"clip": trial.clip} | group).get(name) or 0.0 for group in trial.optimizer.param_groups)
        other = trial._replace(clip=None) if name == "clip" else trial.changed(**{name: repair})
        repaired = max(other.run()[0], 0.0) if now > usual else 0.0
        yield {f"repair_{name}": repaired}
        if repaired > LEARNS:
            return
    for factor in FACTORS:
        if time.thread_time() > deadline:
            return
        if trial.changed(factor).run(ENOUGH if factor > 1 else math.inf)[0] > LEARNS:
            yield {"repair_factor": factor, "lr_excess": max(1 / factor, 1.0)}
            if len(trial.plan) > 1:
                yield {"lr_shortfall": factor * trial.steps / len(trial.plan) if factor > 1 else 0.0}
            return
    yield {"lr_excess": 1.0, "lr_shortfall": 0.0}


def optimizer_facts(optimizer: Any, plan: Plan, own_decay: float) -> Facts:
    """Return the momentum, and which share of a weight its decay removes in a step at the peak learning rate.

    ``own_decay`` is the one that the loss adds.
    """

    def momentum_of(group: dict[str, Any]) -> float:
        return float(group.get("momentum", group.get("betas", (0.0,))[0]))

    decays = [0.0]
    for group, rows in zip(optimizer.param_groups, zip(*plan, strict=True), strict=True):
        peak = group | max(rows, key=lambda row: row["lr"])
        if peak.get("decoupled_weight_decay", "betas" not in peak):  # the steps of other Adams do not depend on it
            # SGD adds decay to the gradient, so that its momentum accumulates it
            sums = 1 / (1 - min(momentum_of(peak), 0.999)) if isinstance(optimizer, torch.optim.SGD) else 1.0
            decay = peak.get("weight_decay", 0.0) + (0.0 if "betas" in peak else own_decay)
            decays.append(peak["lr"] * decay * sums)
    return {
        "momentum": max(map(momentum_of, plan[len(plan) // 2])),
        "has_betas": any("betas" in group for group in optimizer.param_groups),
        "cycles_momentum": any("base_momentum" in group for group in optimizer.param_groups),
        "decay_per_step": max(decays),
    }


def batch_norm_images(module: Any, batch_size: int) -> float:
    """Return over how many images batch norm computes its statistics in training, unless over those of all ranks."""
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm) and each.training]
    return math.inf if all(isinstance(each, nn.SyncBatchNorm) for each in norms) else float(batch_size)
