"""Networks: plain ``nn.Module`` classes whose first argument is the size of their output, one family per file."""

from lightning_modules.networks.lenet import LeNet
from lightning_modules.networks.library import ZooNetwork
from lightning_modules.networks.mlp import MLP, SoftmaxRegression
from lightning_modules.networks.nin import NiN
from lightning_modules.networks.recurrent import Recurrent
from lightning_modules.networks.resnet import ResNet
from lightning_modules.networks.wide_resnet import WideResNet

__all__ = [
    "MLP",
    "LeNet",
    "NiN",
    "Recurrent",
    "ResNet",
    "SoftmaxRegression",
    "WideResNet",
    "ZooNetwork",
]
