"""Transfer tensors from the device in one copy."""

from collections.abc import Mapping

import torch
from torch import Tensor


def to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as float32 on the CPU, with a single transfer."""
    if not tensors:
        return {}
    flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors.values()]).cpu()
    parts = flat.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts, strict=True)}
