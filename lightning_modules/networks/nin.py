"""Network in Network for 32x32 images (Lin, Chen and Yan, 2013, "Network in network")."""

from torch import Tensor, nn


class MLPConv(nn.Sequential):
    """A convolution, then a small MLP at every pixel: two 1x1 convolutions; a ReLU behind each but, if told, the last.

    The output is as large as the input.
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
    """Three MLP convolutions whose last one makes a map for each class, averaged over its pixels to a logit.

    The authors' CIFAR-10 network, 966,986 parameters for ten classes, but for the ReLU on the logits, which would
    leave classes without gradient, and the initialisation by He et al., 2015, which trains it sooner.

    Input: float ``(N, 3, H, W)``. Output: logits ``(N, num_classes)``.

    Args:
        num_classes: Number of logits.
        dropout: Probability that an element of a map is dropped, after each pooling, in training.
    """

    def __init__(self, num_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.block1 = MLPConv(5, (3, 192, 160, 96))
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
