"""Layers, histograms, pictures and transfers for callbacks."""

from functools import cache

from lightning.pytorch.utilities import rank_zero_warn

warn_once = cache(rank_zero_warn)  # once for each text
