"""Networks: plain ``nn.Module`` classes whose first argument is ``num_classes``, one family a file."""

from lightning_modules.networks.lenet import LeNet
from lightning_modules.networks.resnet import ResNet

__all__ = ["LeNet", "ResNet"]
