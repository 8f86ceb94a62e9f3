"""Base classes of callbacks: drawing beside training, validation images, predictions, optimizer steps."""

from callbacks.base.drawing import DrawingCallback
from callbacks.base.images import ImageCallback
from callbacks.base.predictions import PredictionCallback
from callbacks.base.steps import StepCallback

__all__ = ["DrawingCallback", "ImageCallback", "PredictionCallback", "StepCallback"]
