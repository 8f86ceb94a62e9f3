"""What your own callback inherits from: drawing in a background thread, images, predictions, steps."""

from callbacks.base.drawing import DrawingCallback
from callbacks.base.images import ImageCallback
from callbacks.base.predictions import PredictionCallback
from callbacks.base.steps import StepCallback

__all__ = ["DrawingCallback", "ImageCallback", "PredictionCallback", "StepCallback"]
