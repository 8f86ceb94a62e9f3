"""LightningModules that combine network, loss, optimizer, schedule and metrics."""

from lightning_modules.base import ImageModule
from lightning_modules.classifier import ImageClassifier
from lightning_modules.optim.param_groups import ParamGroup
from lightning_modules.weights.initializers import Initializer

__all__ = ["ImageClassifier", "ImageModule", "Initializer", "ParamGroup"]
