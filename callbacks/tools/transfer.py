"""Transfer tensors from the device in one copy, and objects from all ranks."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as float32 on the CPU, with a single transfer."""
    if not tensors:
        return {}
    flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors.values()]).cpu()
    parts = flat.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts, strict=True)}


def from_all_ranks(own: T, world_size: int) -> list[T]:
    """Return an object of each rank, in their order; all ranks must call it."""
    ranks = [own] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(ranks, own)
    return ranks
