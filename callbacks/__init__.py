"""What is watched: one callback a file."""

from callbacks.confusion_matrix import ConfusionMatrix
from callbacks.ema import EMA
from callbacks.feature_maps import FeatureMaps
from callbacks.histograms import WeightAndGradientHistograms
from callbacks.kernels import ConvolutionKernels

__all__ = ["EMA", "ConfusionMatrix", "ConvolutionKernels", "FeatureMaps", "WeightAndGradientHistograms"]
