"""Compute probabilities and classes from logits, of one or several views of each image (test-time augmentation)."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

View = Literal["flip", "translate", "crops"]


def mean_over_views(network: Callable[[Tensor], Tensor], images: Tensor, kinds: Sequence[View]) -> Tensor:
    """Return the weighted mean of the logits of all views, ``(N, num_classes)``, float32 unless they are float64.

    Args:
        network: Network that returns logits for images.
        images: Float ``(N, C, H, W)``, or ``(N, V, C, H, W)`` if the data already has several views.
        kinds: Any of "flip": the image and its mirror image; "translate": the image, with half of the weight, and the
            image shifted by one pixel to the upper left and to the lower right; "crops": its centre and corners of 7/8
            the width, enlarged. Several kinds are combined: ["flip", "translate"] gives 6 views, as in airbench.
    """
    if images.ndim == 5:
        return mean_over_views(network, images.flatten(0, 1), kinds).unflatten(0, images.shape[:2]).mean(1)
    views = [(1.0, images)]
    for kind in kinds:
        views = [(weight * share, view) for weight, whole in views for share, view in MAKERS[kind](whole)]
    logits = [network(view) for _, view in views]
    dtype = torch.promote_types(logits[0].dtype, torch.float32)  # bfloat16 means are often equal
    weighted = (weight * each.to(dtype) for (weight, _), each in zip(views, logits, strict=True))
    return functools.reduce(torch.add, weighted)


def probabilities(logits: Tensor) -> Tensor:
    """Return the probability of each class, float32 ``(N, num_classes)``."""
    return logits.float().softmax(1)


def predicted_classes(logits: Tensor) -> Tensor:
    """Return the most probable class of each image, int64 ``(N,)``; of equal float32 probabilities, the first."""
    return probabilities(logits).argmax(1)


def flip(images: Tensor) -> list[tuple[float, Tensor]]:
    """Return the images and their mirror images, each with its weight."""
    return [(0.5, images), (0.5, images.flip(-1))]


def translate(images: Tensor) -> list[tuple[float, Tensor]]:
    """Return the images, and the images shifted by a pixel along the diagonal with reflect padding."""
    padded = F.pad(images, (1, 1, 1, 1), "reflect")
    return [(0.5, images), (0.25, padded[..., 2:, 2:]), (0.25, padded[..., :-2, :-2])]


def crops(images: Tensor) -> list[tuple[float, Tensor]]:
    """Return the centre and the corners of the images, enlarged to the original size."""
    size = images.shape[-1]
    side = size * 7 // 8
    far = size - side
    corners = [(far // 2, far // 2), (0, 0), (0, far), (far, 0), (far, far)]
    parts = [images[..., top : top + side, left : left + side] for top, left in corners]
    return [(0.2, F.interpolate(part, size=(size, size), mode="bilinear")) for part in parts]


MAKERS: dict[View, Callable[[Tensor], list[tuple[float, Tensor]]]]
MAKERS = {"flip": flip, "translate": translate, "crops": crops}
