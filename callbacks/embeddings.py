"""Embeddings of validation images for TensorBoard's projector."""

from pathlib import Path
from typing import Any

import torch
from google.protobuf import text_format
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from tensorboard.plugins.projector import ProjectorConfig
from torch import Tensor, nn
from torch.nn import functional as F

from callbacks.base.images import ImageCallback, Selection
from callbacks.base.log import LogSnapshot
from callbacks.tools.layers import denormalized, forward, hooked, names_of, network_of, predicted_classes
from callbacks.tools.transfer import to_cpu

THUMBNAIL = 32  # largest side of an image in the projector, in pixels: all must fit into a sprite of 8,192 pixels


class Embeddings(ImageCallback):
    """Log the input of the network's last linear layer for TensorBoard's projector, with thumbnails and class names.

    For a network without a linear layer, its output is logged. Metadata columns: ``class`` and ``predicted``, which is
    "none" if the module's output is not ``(N, classes)``.

    Tags: ``embeddings``.

    Args:
        images: Number of images, distributed evenly over the classes, or their positions in the validation set.
        every_n_epochs: Log in every n-th epoch and the last planned one.
        **kwargs: See ``ImageCallback``.
    """

    required_media = ("embeddings",)

    def __init__(self, images: int | list[int] = 500, every_n_epochs: PositiveInt = 5, **kwargs: Any) -> None:
        super().__init__(images, every_n_epochs=every_n_epochs, **kwargs)

    def collect(self, trainer: Trainer, pl_module: LightningModule, selection: Selection) -> tuple[Any, ...] | None:
        last: list[Tensor] = []  # input of the last called layer
        vectors: list[Tensor] = []
        outputs: list[Tensor] = []
        modules = network_of(pl_module).named_modules()
        linear: dict[str, nn.Module] = {name: layer for name, layer in modules if isinstance(layer, nn.Linear)}

        def keep(name: str, layer: nn.Module, args: Any, output: Any) -> None:
            last[:] = [args[0]]

        with hooked(linear, keep):
            for images in selection.images.split(selection.batch_size):  # one batch may not fit on the device
                outputs.append(forward(trainer, pl_module, images))
                vectors.append((last[0] if last and len(last[0]) == len(images) else outputs[-1]).flatten(1))
        output = torch.cat(outputs)
        images = denormalized(pl_module, selection.images)
        if max(images.shape[-2:]) > THUMBNAIL:
            images = F.interpolate(images, size=(THUMBNAIL, THUMBNAIL), mode="area")
        names = names_of(pl_module, int(selection.targets.max()) + 1)
        # an output of another width does not consist of logits
        logits = output.ndim == 2 and output.shape[1] == len(names)
        preds = predicted_classes(output) if logits else torch.full_like(selection.targets, -1)
        tensors = {"vectors": torch.cat(vectors), "images": images, "targets": selection.targets, "preds": preds}
        return (to_cpu(tensors), names)

    def draw(self, log: LogSnapshot, gathered: dict[str, Tensor], names: list[str]) -> None:
        names = [" ".join(name.split()) for name in names]  # tabs separate columns and line ends separate rows
        pairs = zip(gathered["targets"].int().tolist(), gathered["preds"].int().tolist(), strict=True)
        rows = [[names[true], names[predicted] if predicted >= 0 else "none"] for true, predicted in pairs]
        for writer in log.writers:
            config = Path(writer.log_dir) / "projector_config.pbtxt"
            # a resumed run keeps its earlier epochs
            if not hasattr(writer, "_projector_config") and config.is_file():
                writer._projector_config = text_format.Parse(config.read_text(), ProjectorConfig())
            step = f"projector/{log.step:05}"  # names the folder of its files, and a number would lie in the run's root
            writer.add_embedding(
                gathered["vectors"], rows, gathered["images"], step, "embeddings", ["class", "predicted"]
            )
