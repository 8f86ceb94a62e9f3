"""Shard a network over devices."""

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.distributed.device_mesh import DeviceMesh


def shard(network: nn.Module, mesh: DeviceMesh, compiled: bool) -> None:
    """Shard every parameter over the devices (FSDP2); each layer is gathered when it is needed.

    A layer is a child with parameters; for a Sequential, each of its children, recursively.

    Raises:
        MisconfigurationException: The mesh uses tensor parallelism, or the network is compiled.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard  # takes a second to import

    if compiled:  # it would have only a part of its weights
        raise MisconfigurationException("Expected --model.compile false with ModelParallelStrategy.")
    if (size := mesh["tensor_parallel"].size()) > 1:
        raise MisconfigurationException(f"Expected ModelParallelStrategy with tensor_parallel_size 1, but got {size}.")
    if isinstance(network, FSDPModule):  # sharded by an earlier fit
        return

    def layers(module: nn.Module) -> list[nn.Module]:
        children = []
        for child in module.children():
            children += layers(child) if isinstance(child, nn.Sequential) else [child]
        return [child for child in children if any(True for _ in child.parameters())]

    for layer in [*layers(network), network]:
        fully_shard(layer, mesh=mesh["data_parallel"])
