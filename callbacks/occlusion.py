"""Occlusion sensitivity: which square of an image a prediction depends on most."""

from typing import Any

import torch
from jsonargparse.typing import OpenUnitInterval, PositiveInt
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.base.images import ImageCallback, Selection
from callbacks.base.log import LogSnapshot
from callbacks.tools.fonts import names_in_pictures
from callbacks.tools.layers import check_logits, denormalized, forward, names_of
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
        every_n_epochs: Draw in every n-th epoch and the last planned one.
        **kwargs: See ``ImageCallback``.
    """

    needs_classifier = True

    def __init__(self, share: OpenUnitInterval = 0.25, every_n_epochs: PositiveInt = 5, **kwargs: Any) -> None:
        super().__init__(every_n_epochs=every_n_epochs, **kwargs)
        self.share = share

    def collect(self, trainer: Trainer, pl_module: LightningModule, selection: Selection) -> tuple[Any, ...] | None:
        height, width = selection.images.shape[-2:]
        side = max(round(self.share * min(height, width)), 1)
        step = max(side // 2, 1)
        corners = torch.cartesian_prod(*(torch.arange(0, length - side + 1, step) for length in (height, width)))
        open_share = self._share(trainer, pl_module, selection.images, selection.targets)
        covered = []
        for top, left in corners.tolist():
            images = selection.images.clone()
            images[..., top : top + side, left : left + side] = 0  # the mean colour
            covered.append(self._share(trainer, pl_module, images, selection.targets))
        lowest, where = torch.stack(covered).min(0)
        tensors = {
            "images": denormalized(pl_module, selection.images),
            "shares": torch.stack([open_share, lowest], 1),
            "corners": corners.to(where.device)[where],
            "targets": selection.targets,
        }
        return (side, to_cpu(tensors), names_of(pl_module, int(selection.targets.max()) + 1))

    def draw(self, log: LogSnapshot, side: int, gathered: dict[str, Tensor], names: list[str]) -> None:
        names = names_in_pictures(names)
        images = enlarge(gathered["images"], SIDE)
        factor = images.shape[-1] // gathered["images"].shape[-1]
        captions = []
        columns = (gathered[key] for key in ("corners", "shares", "targets"))
        for image, corner, (before, after), target in zip(images, *columns, strict=True):
            top, left = (factor * corner).int().tolist()
            draw_square(image, top, left, factor * side)
            captions.append([names[int(target)], f"{before:.0%} to {after:.0%}"])
        caption = f"Square with the largest effect on the true class, probability before and after, {log.moment}"
        log.image("occlusion", sheet(images, captions, columns=4, side=SIDE), caption)

    def _share(self, trainer: Trainer, pl_module: LightningModule, images: Tensor, targets: Tensor) -> Tensor:
        """Return the probability of the true class of each image, ``(N,)``."""
        logits = forward(trainer, pl_module, images)
        check_logits(pl_module, logits, self)
        return logits.float().softmax(1).gather(1, targets[:, None])[:, 0]


def draw_square(image: Tensor, top: int, left: int, side: int, line: int = 2) -> None:
    """Draw the outline of a square in red into an image ``(3, H, W)`` from 0 to 1."""
    square = image[:, top : top + side, left : left + side]
    inner = square[:, line:-line, line:-line].clone()
    square[:] = torch.tensor([1.0, 0, 0])[:, None, None]
    square[:, line:-line, line:-line] = inner
