"""The runtime's decoders of 2D networks as torch operators: `pchmr.stages.pose2d.DECODERS`.

keypoints = TORCH_DECODERS["hrnet"](maps)       # (N, J, 3): crop px and score
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from pchmr.prepost import cpn, hrnet
from pchmr_training.view import View

from .stage_forms import LoadedNetwork, network_form

BORDER, KERNEL = 10, 21  # of CPN, cells
SIGMA = 0.3 * ((KERNEL - 1) / 2 - 1) + 0.8  # as OpenCV has it for a kernel of that size


def argmax_2d(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Peak cells (N, J, 2: x, y), integers, and values (N, J) of maps (N, J, H, W)."""
    flat = maps.flatten(2)
    scores, index = flat.amax(2), flat.argmax(2)
    return torch.stack([index % maps.shape[3], index // maps.shape[3]], 2), scores


def at(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values (N, J) of maps (N, J, H, W) at cells (N, J)."""
    return maps.flatten(2).gather(2, (y * maps.shape[3] + x)[..., None])[..., 0]


def decode_hrnet(maps: Tensor) -> Tensor:
    """(N, J, 3) of maps (N, J, H / 4, W / 4); see `heatmaps.decode_quarter_offset` there."""
    cells, scores = argmax_2d(maps)
    cells = torch.where((scores > 0)[..., None], cells, 0)
    x, y = cells.unbind(2)
    height, width = maps.shape[2:]
    inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    u, v = torch.where(inner, x, 1), torch.where(inner, y, 1)
    step = torch.stack(
        [at(maps, u + 1, v) - at(maps, u - 1, v), at(maps, u, v + 1) - at(maps, u, v - 1)], 2
    ).sign()
    moved = cells + 0.25 * step * inner[..., None]
    return torch.cat([hrnet.STRIDE * moved, scores[..., None]], 2)


def decode_cpn(maps: Tensor) -> Tensor:
    """(N, J, 3) of maps (N, J, H / 4, W / 4); see `pchmr.prepost.cpn.peaks`."""
    most = maps.amax((2, 3), keepdim=True)
    smooth = _smoothed(pad(maps / torch.where(most == 0, 1, most), (BORDER,) * 4))
    first, _ = argmax_2d(smooth)
    flat = smooth.flatten(2)
    peak = (first[..., 1] * smooth.shape[3] + first[..., 0])[..., None]
    second, _ = argmax_2d(flat.scatter(2, peak, 0.0).view_as(smooth))
    step = (second - first).to(maps)
    length = step.square().sum(2, keepdim=True).sqrt()
    cells = first - BORDER + 0.25 * step / length.clamp(min=1)  # 0 only where there is no step
    height, width = maps.shape[2:]
    cells = torch.minimum(cells.clamp(min=0), cells.new_tensor([width - 1, height - 1]))
    x, y = cells.round().long().unbind(2)
    scores = at(maps, x, y) / 255 + 0.5
    return torch.cat([cpn.STRIDE * cells + cpn.STRIDE / 2, scores[..., None]], 2)


def _smoothed(maps: Tensor) -> Tensor:
    """OpenCV's Gaussian of `KERNEL` cells, the border reflected."""
    places = np.arange(KERNEL) - KERNEL // 2
    weights = np.exp(-(places**2) / (2 * SIGMA**2))
    kernel = maps.new_tensor(weights / weights.sum())
    planes = pad(maps.flatten(0, 1)[:, None], (KERNEL // 2,) * 4, mode="reflect")
    planes = conv2d(conv2d(planes, kernel[None, None, None]), kernel[None, None, :, None])
    return planes[:, 0].unflatten(0, (-1, maps.shape[1]))


TORCH_DECODERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "hrnet": decode_hrnet,
    "cpn": decode_cpn,
    "keypoints": lambda points: points,
}


class DecodedPose2D(nn.Module):
    """A 2D network and its decoder: crop -> keypoints_2d (N, J, 3), full-frame pixels and score."""

    def __init__(self, loaded: LoadedNetwork) -> None:
        super().__init__()
        form = loaded.form or network_form("pose2d", loaded.spec, loaded.network)
        self.network = form.module
        self._decode = TORCH_DECODERS[form.settings["decoder"]]

    def forward(self, view: View) -> Tensor:
        crop = view.pose_crop or view.crop
        answer = self.network(crop.image)
        maps = answer if isinstance(answer, Tensor) else answer[0]
        points = self._decode(maps.to(crop.affine))
        return torch.cat([crop.to_frame(points[..., :2]), points[..., 2:]], 2)
