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

from callbacks.base.images import ImageCallback, Images
from callbacks.base.log import LogSnapshot
from callbacks.tools.layers import denormalized, find_layers, forward, hooked, names_of, predicted_classes
from callbacks.tools.transfer import to_cpu

THUMBNAIL = 32  # largest side of an image in the projector, in pixels: all must fit into a sprite of 8,192 pixels
BATCH = 64  # images that run through the network at a time, because all may not fit on the device


class Embeddings(ImageCallback):
    """Log the input of the network's last linear layer for TensorBoard's projector, with thumbnails and class names.

    For a network without a linear layer, its output is logged. Metadata columns: ``class`` and ``predicted``, which is
    "none" if the module's output is not ``(N, classes)``.

    Tags: ``embeddings``.
    """

    def __init__(self, images: Images = 500, every_n_epochs: PositiveInt | None = 10, **kwargs: Any) -> None:
        super().__init__(images, every_n_epochs=every_n_epochs, **kwargs)

    def collect(self, trainer: Trainer, pl_module: LightningModule, images: Tensor, targets: Tensor) -> tuple[Any, ...]:
        vectors: list[Tensor] = []
        outputs: list[Tensor] = []
        last: list[Tensor] = []  # input of the linear layer that was called last

        def keep(name: str, layer: nn.Module, args: Any, output: Any) -> None:
            last[:] = [args[0]]

        with hooked(find_layers(pl_module, types=nn.Linear), keep):
            for batch in images.split(BATCH):
                outputs.append(forward(trainer, pl_module, batch))
                vectors.append((last if last and len(last[0]) == len(batch) else outputs)[-1].flatten(1))
        output, names = torch.cat(outputs), names_of(pl_module, int(targets.max()) + 1)
        # an output of another width does not consist of logits
        logits = output.ndim == 2 and output.shape[1] == len(names)
        thumbnails = denormalized(pl_module, images)
        if max(images.shape[-2:]) > THUMBNAIL:
            thumbnails = F.interpolate(thumbnails, size=(THUMBNAIL, THUMBNAIL), mode="area")
        tensors = {
            "vectors": torch.cat(vectors),
            "images": thumbnails,
            "targets": targets,
            "preds": predicted_classes(output) if logits else torch.full_like(targets, -1),
        }
        return (to_cpu(tensors), names)

    def draw(self, log: LogSnapshot, gathered: dict[str, Tensor], names: list[str]) -> None:
        labels = [" ".join(name.split()) for name in names] + ["none"]  # tabs and line ends separate cells and rows
        pairs = torch.stack([gathered["targets"], gathered["preds"]], 1).int().tolist()
        rows = [[labels[true], labels[predicted]] for true, predicted in pairs]  # -1 is "none"
        for writer in log.writers:
            config = Path(writer.log_dir) / "projector_config.pbtxt"
            # a resumed run keeps its earlier epochs
            if not hasattr(writer, "_projector_config") and config.is_file():
                writer._projector_config = text_format.Parse(config.read_text(), ProjectorConfig())
            step = f"projector/{log.step:05}"  # names the folder of its files, and a number would lie in the run's root
            header = ["class", "predicted"]
            writer.add_embedding(gathered["vectors"], rows, gathered["images"], step, "embeddings", header)
