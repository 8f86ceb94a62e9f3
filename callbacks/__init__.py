"""Callbacks for plots, metrics and diagnostics, one per file."""

from callbacks.class_report import ClassReport
from callbacks.confusion_matrix import ConfusionMatrix
from callbacks.doctor import Doctor
from callbacks.ema import EMA
from callbacks.embeddings import Embeddings
from callbacks.feature_maps import FeatureMaps
from callbacks.finite_loss import TerminateOnNaN
from callbacks.grad_cam import GradCAM
from callbacks.gradient_flow import GradientFlow
from callbacks.histograms import ActivationHistograms, Histograms
from callbacks.hyperparameters import Hyperparameters
from callbacks.kernels import ConvolutionKernels
from callbacks.learning_curves import LearningCurves
from callbacks.mistakes import TopMistakes
from callbacks.network_graph import NetworkGraph
from callbacks.occlusion import OcclusionSensitivity
from callbacks.pr_roc_curves import PRROCCurves
from callbacks.throughput import Throughput
from callbacks.training_batch import TrainingBatch

__all__ = [
    "EMA",
    "ActivationHistograms",
    "ClassReport",
    "ConfusionMatrix",
    "ConvolutionKernels",
    "Doctor",
    "Embeddings",
    "FeatureMaps",
    "GradCAM",
    "GradientFlow",
    "Histograms",
    "Hyperparameters",
    "LearningCurves",
    "NetworkGraph",
    "OcclusionSensitivity",
    "PRROCCurves",
    "TerminateOnNaN",
    "Throughput",
    "TopMistakes",
    "TrainingBatch",
]
