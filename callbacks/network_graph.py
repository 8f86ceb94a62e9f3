"""Graph of the network's operations."""

import copy

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor, nn

from callbacks.base.drawing import DrawingCallback
from callbacks.base.log import LogSnapshot
from callbacks.tools.layers import network_of


class NetworkGraph(DrawingCallback):
    """Log the graph of the network to TensorBoard, once, at the start of a fit.

    Needs a module with an ``example_input_array``. For a network that ``torch.jit.trace`` cannot trace, the callback
    warns and logs nothing. Writes TensorBoard's graph, but no tags.
    """

    needs_network = True

    def __init__(self) -> None:
        super().__init__()

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        example = pl_module.example_input_array
        if not isinstance(example, Tensor):
            rank_zero_warn("NetworkGraph logs nothing, because the module has no example_input_array.")
        elif not self.silent:
            # copy, because training changes the weights while a deep network is traced, which takes seconds
            network = copy.deepcopy(network_of(pl_module)).cpu().float().eval()
            self.draw_later(trainer, network, example.detach().cpu().float())

    def draw(self, log: LogSnapshot, network: nn.Module, example: Tensor) -> None:
        for writer in log.writers:
            with torch.no_grad():
                writer.add_graph(network, example)
