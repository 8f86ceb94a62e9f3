"""LeNet for 32x32 colour images (LeCun et al., 1998, "Gradient-based learning applied to document recognition")."""

from torch import Tensor, nn


class LeNet(nn.Module):
    """Two convolutions and three linear layers, 62,006 parameters for ten classes.

    The layers are called ``conv1``, ``pool1``, ``conv2``, ``pool2``, ``fc1``, ``fc2`` and ``fc3``, so that a plain
    state_dict with those names can be loaded unchanged.

    Input: float ``(N, C, 32, 32)``. Output: logits ``(N, num_classes)``.

    Args:
        in_channels: Number of channels C, set by the module that builds the network; 3 by default.
    """

    def __init__(self, num_classes: int, in_channels: int | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels or 3, 6, 5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool1(self.conv1(images).relu())
        x = self.pool2(self.conv2(x).relu())
        x = x.flatten(1)
        x = self.fc1(x).relu()
        x = self.fc2(x).relu()
        return self.fc3(x)
