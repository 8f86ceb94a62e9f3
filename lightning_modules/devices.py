"""What several devices change of a training: images in a step, and learning rates if they are to follow."""

from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

ScaleLR = Literal["none", "linear", "sqrt"]
KEY = "devices"  # in a checkpoint


def lr_factor(scale: ScaleLR, devices: int) -> float:
    """Return the factor on all learning rates for a training on several devices.

    Source: Goyal et al., 2017, "Accurate, Large Minibatch SGD" (linear); Krizhevsky, 2014, "One weird trick for
    parallelizing convolutional neural networks" (sqrt).
    """
    return {"none": 1.0, "linear": float(devices), "sqrt": devices**0.5}[scale]


def tell_step(trainer: Trainer, scale: ScaleLR) -> None:
    """Say once what a step takes, if that is more than a batch of one device, and what becomes of learning rates."""
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
    """Give each device a part of every parameter (FSDP2), of which a layer is put together when it is needed.

    A layer is a child with parameters, or a child of a Sequential, at any depth.

    Raises:
        MisconfigurationException: The mesh also divides single operations among devices, which networks here do not.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard  # takes a second to import

    if mesh["tensor_parallel"].size() > 1:
        raise MisconfigurationException(
            "Expected ModelParallelStrategy with tensor_parallel_size: 1 and as data_parallel_size the number of "
            f"devices, but got {mesh['tensor_parallel'].size()} and {mesh['data_parallel'].size()}."
        )
    if isinstance(network, FSDPModule):  # by a fit before
        return

    def layers(module: nn.Module) -> list[nn.Module]:
        found = []
        for child in module.children():
            found += layers(child) if isinstance(child, nn.Sequential) else [child]
        return [child for child in found if any(True for _ in child.parameters())]

    for layer in [*layers(network), network]:
        fully_shard(layer, mesh=mesh["data_parallel"])


def note_devices(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Write into a checkpoint how it was trained."""
    checkpoint[KEY] = {"devices": trainer.world_size, "batch_size": _batch_size(trainer)}


def compare_devices(trainer: Trainer, checkpoint: dict[str, Any], new_settings: bool) -> None:
    """Say if a training goes on with another number of devices than before.

    Args:
        trainer: Of the training.
        checkpoint: That it goes on from.
        new_settings: Whether learning rates and schedules are those of this training, rather than the checkpoint's.
    """
    before = checkpoint.get(KEY)
    if before is None or trainer.state.fn != TrainerFn.FITTING or before["devices"] == trainer.world_size:
        return
    now: dict[str, Any] = {"devices": trainer.world_size, "batch_size": _batch_size(trainer)}
    words = [f"{one['batch_size']} images on each of {one['devices']} devices" for one in (before, now)]
    images = [one["devices"] * (one["batch_size"] or 0) for one in (before, now)]
    advice = ""
    if all(images) and images[0] != images[1]:
        advice = f" For steps of as many images as before, give --data.batch_size {images[0] // trainer.world_size}."
    if not new_settings:
        advice = (
            f" Learning rates and the length of schedules are the checkpoint's, whatever --model.scale_lr says.{advice}"
        )
    rank_zero_warn(f"The checkpoint was trained with {words[0]}, and goes on with {words[1]}.{advice}")


def _batch_size(trainer: Trainer) -> int | None:
    """Return the number of images in a batch of one device, if the data says so."""
    found = getattr(trainer.datamodule, "batch_size", None)  # type: ignore[attr-defined]  # set elsewhere in Lightning
    return int(found) if isinstance(found, int) else None
