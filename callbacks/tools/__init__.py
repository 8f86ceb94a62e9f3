"""Layers, histograms, pictures and transfers for callbacks."""

from functools import cache

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn

SHARDED = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)  # no process has the whole network
warn_once = cache(rank_zero_warn)  # once for each text
