"""What is trained: modules that hold network, loss, optimizer, schedule and metrics."""

from lightning_modules.classifier import ImageClassifier
from lightning_modules.module import ImageModule
from lightning_modules.param_groups import ParamGroup

__all__ = ["ImageClassifier", "ImageModule", "ParamGroup"]
