"""Gradient-weighted class activation maps (Grad-CAM)."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from matplotlib import colormaps
from torch import Tensor, nn
from torch.nn import functional as F

from callbacks.base.images import ImageCallback, Images
from callbacks.base.log import LogSnapshot
from callbacks.tools.fonts import names_in_pictures
from callbacks.tools.layers import check_maps, denormalized, forward, hooked, names_of, predicted_classes
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
        **kwargs: See ``ImageCallback``.

    Raises:
        MisconfigurationException: The layer does not exist, or its output is not ``(N, C, H, W)``.
    """

    needs_classifier = True
    layer_types = nn.Conv2d

    def __init__(self, layer: str | None = None, images: Images = 6, **kwargs: Any) -> None:
        super().__init__(images, **kwargs)
        self.layers = None if layer is None else [layer]

    def collect(self, trainer: Trainer, pl_module: LightningModule, images: Tensor, targets: Tensor) -> tuple[Any, ...]:
        name, layer = list(self.find_layers(pl_module).items())[-1]
        outputs: list[Any] = []
        # validation runs in inference mode, whose tensors have no gradient
        with torch.inference_mode(False), torch.enable_grad():
            with hooked({name: layer}, lambda *call: outputs.append(call[-1])):
                # frozen layers have a gradient too if the images need one
                logits = forward(trainer, pl_module, images.clone().requires_grad_())
            output = check_maps(outputs[-1] if outputs else None, name)
            classes = torch.stack([targets.clone(), predicted_classes(logits.detach())], 1)
            maps = [evidence(score, output) for score in logits.gather(1, classes).sum(0)]
        tensors = {
            "images": denormalized(pl_module, images),
            "maps": torch.stack(maps, 1),  # (N, 2, h, w)
            "shares": logits.detach().float().softmax(1).gather(1, classes),  # (N, 2)
            "classes": classes,
        }
        return (name, to_cpu(tensors), names_of(pl_module, logits.shape[1]))

    def draw(self, log: LogSnapshot, layer: str, gathered: dict[str, Tensor], names: list[str]) -> None:
        names = names_in_pictures(names)
        cells, captions = [], []
        columns = (gathered[key] for key in ("images", "maps", "shares", "classes"))
        for image, maps, shares, classes in zip(*columns, strict=True):
            cells += [image, *(overlay(image, weights) for weights in maps)]
            captions.append(["image"])
            for word, share, index in zip(("true", "predicted"), shares, classes, strict=True):
                captions.append([word, f"{names[int(index)]} {share:.0%}"])
        picture = sheet(torch.stack(cells), captions, columns=3)
        log.image(f"grad_cam/{layer}", picture, f"Grad-CAM at {layer}, {log.moment}: red is evidence for the class")


def evidence(score: Tensor, output: Tensor) -> Tensor:
    """Return the output ``(N, C, h, w)`` of a layer, weighted by the gradient of a score, as maps ``(N, h, w)``."""
    (gradient,) = torch.autograd.grad(score, output, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise MisconfigurationException("Expected a layer for GradCAM on which the logits depend. Choose another one.")
    return (gradient.float().mean((2, 3), keepdim=True) * output.detach().float()).sum(1).relu()


def overlay(image: Tensor, weights: Tensor) -> Tensor:
    """Return an image ``(3, H, W)`` from 0 to 1, coloured by weights ``(h, w)`` from 0 up; unchanged if all are 0."""
    largest = weights.max()
    if not 0 < largest < torch.inf:
        return image
    large = F.interpolate((weights / largest)[None, None], size=image.shape[-2:], mode="bilinear")[0, 0]
    colours = torch.from_numpy(colormaps["turbo"](large.numpy())[..., :3].astype(np.float32)).permute(2, 0, 1)
    return 0.5 * image.mean(0, keepdim=True) + 0.5 * colours
