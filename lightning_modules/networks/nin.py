"""Network in Network for 32x32 images (Lin, Chen and Yan, 2013, "Network in network")."""

from torch import Tensor, nn


class MLPConv(nn.Sequential):
    """A convolution and two 1x1 convolutions, which form a small MLP at every pixel, each followed by a ReLU.

    The last ReLU is optional. The output has the same height and width as the input.
    """

    def __init__(self, kernel_size: int, channels: tuple[int, int, int, int], last_relu: bool = True) -> None:
        super().__init__(
            nn.Conv2d(channels[0], channels[1], kernel_size, padding=kernel_size // 2),
            nn.ReLU(),
            nn.Conv2d(channels[1], channels[2], 1),
            nn.ReLU(),
            nn.Conv2d(channels[2], channels[3], 1),
            nn.ReLU() if last_relu else nn.Identity(),
        )


class NiN(nn.Module):
    """Three MLP convolutions; the last one returns one map per class, whose mean over the pixels is the logit.

    It is the authors' CIFAR-10 network with 966,986 parameters for ten classes, with two differences: there is no ReLU
    on the logits, which would leave classes without gradient, and the initialisation is that of He et al., 2015, which
    speeds up training.

    Input: float ``(N, C, H, W)``. Output: logits ``(N, num_classes)``.

    Args:
        dropout: Probability that an element of a map is dropped after each pooling in training.
        in_channels: Number of channels C, set by the module that builds the network; 3 by default.
    """

    def __init__(self, num_classes: int, dropout: float = 0.5, in_channels: int | None = None) -> None:
        super().__init__()
        self.block1 = MLPConv(5, (in_channels or 3, 192, 160, 96))
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.block2 = MLPConv(5, (96, 192, 192, 192))
        self.pool2 = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.block3 = MLPConv(3, (192, 192, 192, num_classes), last_relu=False)
        self.dropout = nn.Dropout(dropout)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.dropout(self.pool1(self.block1(images)))
        x = self.dropout(self.pool2(self.block2(x)))
        return self.block3(x).mean(dim=(2, 3))
