"""What a network costs: parameters, and multiply-adds counted by torch on tensors without data."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from .spec import NetworkSpec


def count_parameters(spec: NetworkSpec) -> int:
    """Trainable values; statistics of norms and start values do not count."""
    with torch.device("meta"):
        network = spec.build()
    return sum(value.numel() for value in network.parameters())


def count_macs(spec: NetworkSpec) -> int:
    """Multiply-adds of convolutions and matrix products for one input; half the FLOPs."""
    with torch.device("meta"):
        network = spec.build().eval().requires_grad_(False)
        inputs = torch.empty(spec.input.shape)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(inputs)
    return counter.get_total_flops() // 2


@dataclass(frozen=True)
class PaperDesign:
    """A row of Table 2 of Luan et al. 2021, and the networks that a frame of it runs, as shares.

    The paper's GFLOPs are multiply-adds.
    """

    design: str
    paper_gmacs: float
    networks: Mapping[str, float]


# HMMR's own part is counted by clips of 20 frames. The paper's 12.6 for CPN is that of no released
# one (7.3, 16.5, 24.6); its 16.0 for HRNet is the authors' own count for w32 at 384x288.
PAPER_DESIGNS = (
    PaperDesign("HMR", 3.5, {"hmr_tf": 1}),
    PaperDesign("HMMR", 3.6, {"hmr_tf": 1, "hmmr_tf": 1 / 20}),
    PaperDesign("serial: HMR, SemGCN", 3.5, {"hmr_tf": 1, "semgcn_nonlocal": 1}),
    PaperDesign(
        "serial: HMR, VideoPose3D", 3.5, {"hmr_tf": 1, "videopose3d_h36m_243_optimized1f": 1}
    ),
    PaperDesign(
        "parallel: HMR, HRNet, SemGCN",
        19.5,
        {"hmr_tf": 1, "hrnet_w32_384x288": 1, "semgcn_nonlocal": 1},
    ),
    PaperDesign(
        "parallel: HMR, CPN, SemGCN",
        16.1,
        {"hmr_tf": 1, "cpn50_384x288": 1, "semgcn_nonlocal": 1},
    ),
)
