"""Shard a network over devices."""

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.distributed.device_mesh import DeviceMesh


def shard(network: nn.Module, mesh: DeviceMesh, compiled: bool) -> None:
    """Shard every parameter over the devices (FSDP2); each layer is gathered when it is needed.

    A layer is a child with parameters; for a Sequential, each of its children, recursively.

    Raises:
        MisconfigurationException: The mesh uses tensor parallelism, which the networks do not support, or the network
            is compiled.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard  # takes a second to import

    if compiled:
        raise MisconfigurationException(
            "Expected --model.compile false with ModelParallelStrategy, because a compiled network would have only a "
            "part of its weights."
        )
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
