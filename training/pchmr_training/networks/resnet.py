"""Residual networks, version 1, with the stride in the 3x3 convolution; keys as torchvision's."""

from torch import Tensor, nn

LAYERS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size, up to its stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs)]


def conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*conv_bn(inputs, outputs, kernel, stride), nn.ReLU(inplace=True))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(channels, channels, 3)
        self.conv2, self.bn2 = conv_bn(channels, channels, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(x + self.bn2(self.conv2(y)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution around an identity, or a projection where `project`."""

    def __init__(
        self, inputs: int, width: int, outputs: int, stride: int = 1, project: bool = False
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inputs, width, 1)
        self.conv2, self.bn2 = conv_bn(width, width, 3, stride)
        self.conv3, self.bn3 = conv_bn(width, outputs, 1)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(*conv_bn(inputs, outputs, 1, stride)) if project else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.downsample(x) + self.bn3(self.conv3(y)))


def bottlenecks(inputs: int, width: int, count: int, stride: int = 1) -> nn.Sequential:
    """`count` bottlenecks to 4 * width channels; the first one strides and projects."""
    first = Bottleneck(inputs, width, 4 * width, stride, project=True)
    rest = (Bottleneck(4 * width, width, 4 * width) for _ in range(count - 1))
    return nn.Sequential(first, *rest)


class ResNet(nn.Module):
    """Image (B, 3, H, W) to four maps of 256, 512, 1024, 2048 channels, H/4 to H/32."""

    def __init__(self, depth: int = 50) -> None:
        super().__init__()
        counts = LAYERS[depth]
        self.conv1, self.bn1 = conv_bn(3, 64, 7, 2)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = bottlenecks(64, 64, counts[0])
        self.layer2 = bottlenecks(256, 128, counts[1], 2)
        self.layer3 = bottlenecks(512, 256, counts[2], 2)
        self.layer4 = bottlenecks(1024, 512, counts[3], 2)

    def levels(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x1 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(image)))))
        x2 = self.layer2(x1)
        x3 = self.layer3(x2)
        return x1, x2, x3, self.layer4(x3)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.levels(image)
