"""Occlusion sensitivity: which square of an image a prediction depends on most."""

from typing import Any

import torch
from jsonargparse.typing import OpenUnitInterval, PositiveInt
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from callbacks.base.images import ImageCallback
from callbacks.base.log import LogSnapshot
from callbacks.tools.fonts import names_in_pictures
from callbacks.tools.layers import denormalized, forward, names_of
from callbacks.tools.pictures import enlarge, sheet
from callbacks.tools.transfer import to_cpu

SIDE = 192  # minimum side of an image in pixels


class OcclusionSensitivity(ImageCallback):
    """Mark the square of each image whose occlusion reduces the probability of the true class most.

    Source: Zeiler and Fergus, 2014, "Visualizing and understanding convolutional networks". The square is filled with
    the mean colour; the network evaluates each image once for every position of the square. Needs a module that returns
    logits ``(N, classes)``.

    Tags: ``occlusion``: the images, each with a box, the class, and its probability before and after the occlusion.

    Args:
        share: Side of the square as a fraction of the image's.
        **kwargs: See ``ImageCallback``.
    """

    needs_classifier = True

    def __init__(self, share: OpenUnitInterval = 0.25, every_n_epochs: PositiveInt | None = 10, **kwargs: Any) -> None:
        super().__init__(every_n_epochs=every_n_epochs, **kwargs)
        self.share = share

    def collect(self, trainer: Trainer, pl_module: LightningModule, images: Tensor, targets: Tensor) -> tuple[Any, ...]:
        def probability(images: Tensor) -> Tensor:
            """Return the probability of the true class of each image, ``(N,)``."""
            shares = forward(trainer, pl_module, images).float().softmax(1)
            return shares.gather(1, targets[:, None])[:, 0]

        side = max(round(self.share * min(images.shape[-2:])), 1)
        starts = (torch.arange(0, length - side + 1, max(side // 2, 1)) for length in images.shape[-2:])
        corners = torch.cartesian_prod(*starts)
        after = []
        for top, left in corners.tolist():
            covered = images.clone()
            covered[..., top : top + side, left : left + side] = 0  # the mean colour
            after.append(probability(covered))
        lowest, where = torch.stack(after).min(0)
        tensors = {
            "images": denormalized(pl_module, images),
            "before": probability(images),
            "after": lowest,
            "corners": corners.to(where.device)[where],
            "targets": targets,
        }
        return (side, to_cpu(tensors), names_of(pl_module, int(targets.max()) + 1))

    def draw(self, log: LogSnapshot, side: int, gathered: dict[str, Tensor], names: list[str]) -> None:
        names, images = names_in_pictures(names), enlarge(gathered["images"], SIDE)
        factor = images.shape[-1] // gathered["images"].shape[-1]
        marked, captions = [], []
        columns = (gathered[key] for key in ("corners", "before", "after", "targets"))
        for image, corner, before, after, target in zip(images, *columns, strict=True):
            top, left = (factor * corner).tolist()
            box = torch.tensor([[left, top, left + factor * side - 1, top + factor * side - 1]])
            marked.append(draw_bounding_boxes(image, box, colors="red", width=2))
            captions.append([names[int(target)], f"{before:.0%} to {after:.0%}"])
        caption = f"Square with the largest effect on the true class, probability before and after, {log.moment}"
        log.image("occlusion", sheet(torch.stack(marked), captions, columns=4, side=SIDE), caption)
