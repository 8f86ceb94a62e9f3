"""Training on several devices: global batch size, learning rate scaling and sharding."""

from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

ScaleLR = Literal["none", "linear", "sqrt"]
KEY = "devices"  # key in a checkpoint


def lr_factor(scale: ScaleLR, devices: int) -> float:
    """Return the factor on all learning rates for training on several devices.

    Source: Goyal et al., 2017, "Accurate, Large Minibatch SGD" (linear); Krizhevsky, 2014, "One weird trick for
    parallelizing convolutional neural networks" (sqrt).
    """
    return {"none": 1.0, "linear": float(devices), "sqrt": devices**0.5}[scale]


def report_step(trainer: Trainer, scale: ScaleLR) -> None:
    """Report the global batch size and the scaling of learning rates if a step has more than one batch."""
    devices, times = trainer.world_size, trainer.accumulate_grad_batches
    if devices * times == 1:
        return
    each = _batch_size(trainer)
    images = "a batch" if each is None else f"{devices * times * each:,} images: {each:,}"
    accumulated = f", {times} times (accumulate_grad_batches)" if times > 1 else ""
    lr = "are as given (--model.scale_lr none)"
    if scale != "none":
        lr = f"are multiplied by {lr_factor(scale, devices):g} (--model.scale_lr {scale})"
    plural = "s" if devices > 1 else ""
    rank_zero_info(f"A step takes {images} on each of {devices} device{plural}{accumulated}. Learning rates {lr}.")


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard every parameter over the devices (FSDP2); each layer is gathered when it is needed.

    A layer is a child with parameters; for a Sequential, each of its children, recursively.

    Raises:
        MisconfigurationException: The mesh uses tensor parallelism, which the networks do not support.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard  # takes a second to import

    if mesh["tensor_parallel"].size() > 1:
        raise MisconfigurationException(
            "Expected ModelParallelStrategy with tensor_parallel_size: 1 and data_parallel_size: the number of "
            f"devices, but got {mesh['tensor_parallel'].size()} and {mesh['data_parallel'].size()}."
        )
    if isinstance(network, FSDPModule):  # sharded by an earlier fit
        return

    def layers(module: nn.Module) -> list[nn.Module]:
        children = []
        for child in module.children():
            children += layers(child) if isinstance(child, nn.Sequential) else [child]
        return [child for child in children if any(True for _ in child.parameters())]

    for layer in [*layers(network), network]:
        fully_shard(layer, mesh=mesh["data_parallel"])


def note_devices(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Save the number of devices and the batch size in a checkpoint."""
    checkpoint[KEY] = {"devices": trainer.world_size, "batch_size": _batch_size(trainer)}


def compare_devices(trainer: Trainer, checkpoint: dict[str, Any], new_settings: bool) -> None:
    """Warn if training resumes with another number of devices.

    Args:
        trainer: Trainer of the resumed run.
        checkpoint: Checkpoint that it resumes from.
        new_settings: Whether learning rates and schedules are those of the config instead of the checkpoint's.
    """
    before = checkpoint.get(KEY)
    if before is None or trainer.state.fn != TrainerFn.FITTING or before["devices"] == trainer.world_size:
        return
    after: dict[str, Any] = {"devices": trainer.world_size, "batch_size": _batch_size(trainer)}
    words = [f"{each['batch_size']} images on each of {each['devices']} devices" for each in (before, after)]
    images = [each["devices"] * (each["batch_size"] or 0) for each in (before, after)]
    advice = ""
    if all(images) and images[0] != images[1]:
        advice = f" To keep the global batch size, set --data.batch_size {images[0] // trainer.world_size}."
    if not new_settings:
        advice = (
            f" Learning rates and schedule lengths are those of the checkpoint; --model.scale_lr has no effect.{advice}"
        )
    rank_zero_warn(f"The checkpoint was trained with {words[0]}, but training resumes with {words[1]}.{advice}")


def _batch_size(trainer: Trainer) -> int | None:
    """Return the batch size per device, or None if the data module does not have one."""
    batch_size = getattr(trainer.datamodule, "batch_size", None)  # type: ignore[attr-defined]  # set elsewhere in Lightning
    return int(batch_size) if isinstance(batch_size, int) else None
