"""What a landmark detector makes of a projected body: noise, visibility, cut-off, swapped sides.

Modelled on BlazePose (regions of 256 pixels, [-1, 1] from edge to edge): 1 to 2 pixels on the trunk
and 3 to 6 on hands and feet where they are seen, several times that where they are hidden;
landmarks of the face and trunk always claim to be visible.
"""

import torch
from torch import Tensor

from .networks import KEYPOINTS
from .views import BLAZEPOSE, View

PICK = [BLAZEPOSE.index(name) for name in KEYPOINTS]
# (tail, tip, radius in metres) of the limbs that hide others
CAPSULES = (
    *(("left_shoulder", "left_elbow", 0.05), ("right_shoulder", "right_elbow", 0.05)),
    *(("left_elbow", "left_wrist", 0.04), ("right_elbow", "right_wrist", 0.04)),
    *(("left_hip", "left_knee", 0.08), ("right_hip", "right_knee", 0.08)),
    *(("left_knee", "left_ankle", 0.055), ("right_knee", "right_ankle", 0.055)),
    *(("left_shoulder", "left_hip", 0.1), ("right_shoulder", "right_hip", 0.1)),
    *(("left_shoulder", "right_hip", 0.1), ("right_shoulder", "left_hip", 0.1)),
)
TAILS = [BLAZEPOSE.index(tail) for tail, _, _ in CAPSULES]
TIPS = [BLAZEPOSE.index(tip) for _, tip, _ in CAPSULES]
RADII = torch.tensor([radius for *_, radius in CAPSULES])
_LIMBS = {
    "elbow": (0.016, "shoulder"),
    "wrist": (0.022, "elbow"),
    **dict.fromkeys(("pinky", "index", "thumb"), (0.018, "wrist")),
    "knee": (0.016, "hip"),
    "ankle": (0.022, "knee"),
    **dict.fromkeys(("heel", "foot_index"), (0.018, "ankle")),
}

ENDS = ("wrist", "ankle")


def _part(name: str) -> str:
    return name.split("_", 1)[-1]


def _error_chain() -> tuple[Tensor, Tensor]:
    """(25,) deviations, and the (25, 25) matrix by which points inherit their parents' errors."""
    deviation, inherit = torch.full((len(KEYPOINTS),), 0.010), torch.eye(len(KEYPOINTS))
    for i, name in enumerate(KEYPOINTS):
        if _part(name) in _LIMBS:
            deviation[i], parent = _LIMBS[_part(name)]
            row = KEYPOINTS.index(name.replace(_part(name), parent))
            share = 0.9 if parent in ENDS else 0.5
            inherit[i] += share * inherit[row]
    return deviation, inherit


DEVIATION, INHERIT = _error_chain()
# metres from the body's landmark to the detector's: most for small points of hands and feet
OFFSET = torch.full((len(BLAZEPOSE), 1), 0.012)
_SMALL = [_LIMBS.get(_part(name), (0, ""))[1] in ENDS for name in BLAZEPOSE.joints]
OFFSET[_SMALL] = 0.025
CAN_HIDE = torch.tensor([_part(name) in _LIMBS for name in KEYPOINTS])


def _own_limb() -> Tensor:
    """(25, capsules): a limb does not hide the points of its own side's same arm or leg."""
    arm = {"shoulder", "elbow", "wrist", "pinky", "index", "thumb"}

    def limb(name: str) -> tuple[str, bool]:
        return name.split("_", 1)[0], _part(name) in arm

    def owns(tail: str, tip: str, name: str) -> bool:
        return limb(tail) == limb(tip) == limb(name)

    return torch.tensor([[owns(a, b, name) for a, b, _ in CAPSULES] for name in KEYPOINTS])


OWN_LIMB = _own_limb()


def hidden(points: Tensor) -> Tensor:
    """(B, 25) booleans: keypoints behind a limb or the trunk; points (B, 33, 3) in its frame."""
    image = points[..., :2] / points[..., 2:].clamp(min=0.2)
    tail, tip = image[:, None, TAILS], image[:, None, TIPS]
    along, point = tip - tail, image[:, PICK, None]
    share = ((point - tail) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-9)
    share = share.clamp(0, 1)
    gap = (point - tail - share[..., None] * along).norm(dim=-1)
    depth = points[:, None, TAILS, 2] + share * (points[:, TIPS, 2] - points[:, TAILS, 2])[:, None]
    before = depth + RADII / 2 < points[:, PICK, 2, None]
    behind = before & (gap * depth < RADII) & ~OWN_LIMB
    return behind.any(-1) & CAN_HIDE


def _cut(keypoints: Tensor, rng: torch.Generator) -> Tensor:
    """(B, 25) booleans: keypoints beyond the edge of the photo, in one sample of five."""
    n = len(keypoints)
    side = torch.multinomial(torch.tensor([0.6, 0.15, 0.15, 0.1]), n, True, generator=rng)
    outward = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.0, -1.0]])[side]
    edge = 0.05 + 0.75 * torch.rand(n, generator=rng)
    edge[torch.rand(n, generator=rng) > 0.2] = 9.0
    return (keypoints * outward[:, None]).sum(-1) > edge[:, None]


def _swap_sides(keypoints: Tensor, rng: torch.Generator) -> Tensor:
    """Exchange left and right of the legs (3 %), the arms (2 %) or the whole body (1 %)."""
    draw = torch.rand(len(keypoints), 1, generator=rng)
    legs, arms, body = draw < 0.03, (draw > 0.03) & (draw < 0.05), draw > 0.99
    for i, name in enumerate(KEYPOINTS):
        if not name.startswith("left_"):
            continue
        j = KEYPOINTS.index(name.replace("left_", "right_"))
        part = _part(name)
        swap = body | (legs if part in ("knee", "ankle", "heel", "foot_index") else False)
        swap = swap | (arms if part in ("elbow", "wrist", "pinky", "index", "thumb") else False)
        left, right = keypoints[:, i].clone(), keypoints[:, j].clone()
        keypoints[:, i] = torch.where(swap, right, left)
        keypoints[:, j] = torch.where(swap, left, right)
    return keypoints


def observe(view: View, landmarks: Tensor, rng: torch.Generator) -> Tensor:
    """(B, 25, 3) keypoints as the detector would give them; landmarks (B, 33, 3), upright frame.

    Each landmark also sits up to a few centimetres from where the body's regressor has it. One
    sample in eight is exact and wholly visible, as a mesh's own projection is.
    """
    n = len(landmarks)
    exact = torch.rand(n, 1, generator=rng) < 1 / 8
    offsets = OFFSET * torch.randn(landmarks.shape, generator=rng)
    placed = view.place(landmarks + torch.where(exact[..., None], 0.0, offsets))
    clean = view.project(placed[:, PICK])
    occluded, outside = hidden(placed), _cut(clean, rng)
    scale = torch.exp(0.5 * torch.randn(n, 1, generator=rng) - 0.1)
    scale = scale * (1 + 2.0 * occluded + 5.0 * outside)
    scale = scale * (1 + 2.0 * (torch.rand(n, len(KEYPOINTS), generator=rng) < 0.03))
    noise = (scale * DEVIATION)[..., None] * torch.randn(clean.shape, generator=rng)
    noisy = clean + INHERIT @ noise
    uniform = torch.rand(n, len(KEYPOINTS), generator=rng)
    visibility = 1 - 0.15 * uniform.square() * CAN_HIDE
    visibility = torch.where(occluded, 0.15 + 0.83 * uniform, visibility)
    visibility = torch.where(outside, 0.4 * uniform.square(), visibility)
    noisy = _swap_sides(torch.cat([noisy, visibility[..., None]], -1), rng)
    sure = torch.cat([clean, torch.ones(n, len(KEYPOINTS), 1)], -1)
    return torch.where(exact[..., None], sure, noisy)
