"""Param groups, optimizers and schedules; its classes are for configs."""

from lightning_modules.optim.optimizers import Muon
from lightning_modules.optim.param_groups import ParamGroup
from lightning_modules.optim.schedules import LambdaLR, OneCycle, ProgressLR, Triangle, WarmupCosine

__all__ = ["LambdaLR", "Muon", "OneCycle", "ParamGroup", "ProgressLR", "Triangle", "WarmupCosine"]
