"""Where images lie in the space that the last layer divides."""

from pathlib import Path
from typing import Any

import torch
from google.protobuf import text_format
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from tensorboard.plugins.projector import ProjectorConfig
from torch import Tensor, nn
from torch.nn import functional as F

from callbacks.gather import network_of, to_cpu
from callbacks.loggers import Log
from callbacks.looking import ImageWatcher, Shown, denormalized, forward, names_of

THUMBNAIL = 32  # largest side of an image in the projector, in pixels: all must fit into a sprite of 8,192


class Embeddings(ImageWatcher):
    """Log the input of the network's last linear layer for TensorBoard's projector, with thumbnails and class names.

    A network without a linear layer shows its output. Names of columns: class, predicted.

    Tags: ``embeddings``.

    Args:
        images: Number of images, as many of each class, or their positions in the validation set.
        random: Take others in each epoch.
        every_n_epochs: Log each n-th epoch, and the last.
    """

    takes = ("embeddings",)

    def __init__(self, images: int | list[int] = 500, random: bool = False, every_n_epochs: PositiveInt = 5) -> None:
        super().__init__(images, random, every_n_epochs)

    def look(self, trainer: Trainer, pl_module: LightningModule, shown: Shown) -> tuple[Any, ...] | None:
        inputs: list[Tensor] = []
        handles = [
            layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
            for layer in network_of(pl_module).modules()
            if isinstance(layer, nn.Linear)
        ]
        try:
            output = forward(trainer, pl_module, shown.images)
        finally:
            for handle in handles:
                handle.remove()
        vectors = (inputs[-1] if inputs and len(inputs[-1]) == len(output) else output).flatten(1)
        images = denormalized(pl_module, shown.images)
        if max(images.shape[-2:]) > THUMBNAIL:
            images = F.interpolate(images, size=(THUMBNAIL, THUMBNAIL), mode="area")
        preds = output.argmax(1) if output.ndim == 2 else torch.zeros_like(shown.targets)
        tensors = {"vectors": vectors, "images": images, "targets": shown.targets, "preds": preds}
        count = int(max(shown.targets.max(), preds.max())) + 1
        return (to_cpu(tensors), names_of(pl_module, count))

    def draw(self, log: Log, gathered: dict[str, Tensor], names: list[str]) -> None:
        names = [" ".join(name.split()) for name in names]  # a column ends at a tab, a row at a line's end
        pairs = zip(gathered["targets"].int().tolist(), gathered["preds"].int().tolist(), strict=True)
        rows = [[names[true], names[predicted] if predicted < len(names) else ""] for true, predicted in pairs]
        for writer in log.writers:
            config = Path(writer.log_dir) / "projector_config.pbtxt"
            if (
                not hasattr(writer, "_projector_config") and config.is_file()
            ):  # of a run that is resumed: keep its epochs
                writer._projector_config = text_format.Parse(config.read_text(), ProjectorConfig())
            writer.add_embedding(
                gathered["vectors"], rows, gathered["images"], log.step, "embeddings", ["class", "predicted"]
            )
