"""Gradient-weighted class activation maps (Grad-CAM)."""

import math
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from matplotlib import colormaps
from torch import Tensor, nn
from torch.nn import functional as F

from callbacks.base.images import ImageCallback, Selection
from callbacks.base.log import LogSnapshot
from callbacks.tools.fonts import names_in_pictures
from callbacks.tools.layers import (
    check_logits,
    check_maps,
    convolutions,
    denormalized,
    forward,
    hooked,
    matching_layers,
    names_of,
    predicted_classes,
)
from callbacks.tools.pictures import sheet
from callbacks.tools.transfer import to_cpu


class GradCAM(ImageCallback):
    """Overlay validation images with maps of the evidence for a class (Selvaraju et al., 2017, "Grad-CAM").

    Needs a module that returns logits ``(N, classes)``.

    Tags: ``grad_cam/<layer>``: for each image, the image, the map of its true class and the map of the predicted class,
    with their probabilities. Red marks the strongest evidence for the class, blue the weakest or evidence against it.

    Args:
        layer: Name of the layer whose output is weighted; by default the last convolution. For a network without
            convolutions, the callback warns and draws nothing.
        images: Number of images, distributed evenly over the classes, or their positions in the validation set.
        **kwargs: See ``ImageCallback``.

    Raises:
        MisconfigurationException: The layer does not exist, its output is not ``(N, C, H, W)``, or the logits do not
            depend on it.
    """

    needs_classifier = True

    def __init__(self, layer: str | None = None, images: int | list[int] = 6, **kwargs: Any) -> None:
        super().__init__(images, **kwargs)
        self.layer = layer

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and not self.find_layers(pl_module):
            rank_zero_warn("GradCAM needs a convolution, but the network has none. It logs nothing.")

    def find_layers(self, pl_module: LightningModule) -> dict[str, nn.Module]:
        if self.layer is None:
            return convolutions(pl_module)
        return matching_layers(pl_module, [self.layer], self)

    def collect(self, trainer: Trainer, pl_module: LightningModule, selection: Selection) -> tuple[Any, ...] | None:
        if not (layers := self.find_layers(pl_module)):
            return None
        name, layer = list(layers.items())[-1]
        tensors = self._weigh(trainer, pl_module, selection, name, layer)
        tensors["images"] = denormalized(pl_module, selection.images)
        return (name, to_cpu(tensors), names_of(pl_module, int(tensors["classes"].max()) + 1))

    def draw(self, log: LogSnapshot, layer: str, gathered: dict[str, Tensor], names: list[str]) -> None:
        names = names_in_pictures(names)
        cells, captions = [], []
        columns = (gathered[key] for key in ("images", "maps", "shares", "classes"))
        for image, maps, shares, classes in zip(*columns, strict=True):
            cells += [image, *(overlay(image, weights) for weights in maps)]
            captions.append(["image"])
            for word, share, index in zip(("true", "predicted"), shares, classes, strict=True):
                captions.append([f"{word}: {share:.0%}", names[int(index)]])
        picture = sheet(torch.stack(cells), captions, columns=3)
        log.image(f"grad_cam/{layer}", picture, f"Grad-CAM at {layer}, {log.moment}: red is evidence for the class")

    def _weigh(
        self, trainer: Trainer, pl_module: LightningModule, selection: Selection, name: str, layer: nn.Module
    ) -> dict[str, Tensor]:
        """Return the true and predicted class, ``(N, 2)``, their probabilities, and their maps, ``(N, 2, h, w)``."""
        outputs: list[Tensor] = []
        # validation runs in inference mode, whose tensors have no gradient
        with torch.inference_mode(False), torch.enable_grad():
            images = selection.images.clone().requires_grad_()  # so that frozen layers have a gradient
            with hooked({name: layer}, lambda name, module, args, output: outputs.append(output)):
                logits = forward(trainer, pl_module, images)
            check_logits(pl_module, logits, self)
            output = check_maps(outputs[-1] if outputs else None, name, self)
            classes = torch.stack([selection.targets.clone(), predicted_classes(logits.detach())], 1)
            scores = logits.gather(1, classes).sum(0)
            maps = [evidence(score, output) for score in scores]
        shares = logits.detach().float().softmax(1).gather(1, classes)
        return {"classes": classes, "shares": shares, "maps": torch.stack(maps, 1)}


def evidence(score: Tensor, output: Tensor) -> Tensor:
    """Return the output ``(N, C, h, w)`` of a layer, weighted by the gradient of a score, as maps ``(N, h, w)``."""
    (gradient,) = torch.autograd.grad(score, output, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise MisconfigurationException(
            "Expected the logits to depend on the layer of GradCAM, but they do not. Set another layer."
        )
    return (gradient.float().mean((2, 3), keepdim=True) * output.detach().float()).sum(1).relu()


def overlay(image: Tensor, weights: Tensor) -> Tensor:
    """Return an image ``(3, H, W)`` from 0 to 1, coloured by weights ``(h, w)`` from 0 up; unchanged if all are 0."""
    largest = weights.max()
    if not math.isfinite(largest) or largest <= 0:
        return image
    large = F.interpolate((weights / largest)[None, None], size=image.shape[-2:], mode="bilinear")[0, 0]
    colours = torch.from_numpy(colormaps["turbo"](large.numpy())[..., :3].astype(np.float32)).permute(2, 0, 1)
    return 0.5 * image.mean(0, keepdim=True) + 0.5 * colours
