"""What is trained: modules that hold network, loss, optimizer, schedule and metrics."""

from lightning_modules.autoencoder import Autoencoder
from lightning_modules.classifier import ImageClassifier
from lightning_modules.distiller import Distiller
from lightning_modules.initializers import Initializer
from lightning_modules.metric_learner import MetricLearner
from lightning_modules.module import ImageModule
from lightning_modules.param_groups import ParamGroup

__all__ = ["Autoencoder", "Distiller", "ImageClassifier", "ImageModule", "Initializer", "MetricLearner", "ParamGroup"]
