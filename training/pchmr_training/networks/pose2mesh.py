"""The lifter of Pose2Mesh (Choi et al. 2020): a residual perceptron with the norms first."""

from functools import partial

from torch import Tensor, nn

from .martinez import LinearStage
from .spec import KeypointInput, NetworkSpec


class Pose2MeshLifter(nn.Module):
    """(B, 2 J) standardised joints to (B, 3 J), millimetres, root relative.

    The file holds a norm after the first layer that the network never uses.
    """

    def __init__(self, joints: int, width: int = 4096, dropout: float = 0.5) -> None:
        super().__init__()
        self.w1, self.batch_norm1 = nn.Linear(2 * joints, width), nn.BatchNorm1d(width)
        self.linear_stages = nn.ModuleList(
            LinearStage(width, norm_first=True, dropout=dropout) for _ in range(2)
        )
        self.w2 = nn.Linear(width, 3 * joints)

    def forward(self, keypoints: Tensor) -> Tensor:
        x = self.w1(keypoints)
        for stage in self.linear_stages:
            x = stage(x)
        return self.w2(x)


def _spec(joints: int, skeleton: str, parameters: int) -> NetworkSpec:
    return NetworkSpec(
        f"pose2mesh_lifter{joints}",
        partial(Pose2MeshLifter, joints),
        KeypointInput(skeleton, (1, 2 * joints), normalise="pose2mesh"),
        ("pose",),
        skeleton=skeleton,
        unit="mm, root relative",
        licence="MIT",
        parameters=parameters,
        gmacs=0.0675,
        wrappers=("model_state_dict",),
        prefix="pose_lifter.",
        ignore=("pose2mesh.",),
    )


SPECS = (
    _spec(17, "h36m17", 67_518_515),
    _spec(19, "pose2mesh_coco19", 67_559_481),
)
