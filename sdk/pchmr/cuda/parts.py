"""What the followed frame is made of on a GPU: engines, the body's tables and the calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pchmr_engines.backends import BACKENDS
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Engine
from pchmr_engines.errors import EngineError, PchmrError
from pchmr_kernels import cuda
from pchmr_kernels.joint_tables import joint_tables
from pchmr_kernels.skeletons import Skeleton, get_skeleton
from pchmr_kernels.weights import MOST_BONES, SparseWeights, from_dense

from ..assembly import Assembly
from ..body_file import Body
from ..bundle_networks import takes_landmarks, takes_rois
from ..perceptrons import Perceptrons

BACKENDS_OF_THE_GPU = tuple(
    sorted(
        (name for name, one in BACKENDS.items() if one.device == "cuda"),
        key=lambda name: not name.startswith("tensorrt"),
    )
)
"""TensorRT first, which is what "auto" tries first."""
TOPOLOGIES = ("serial", "parallel", "mesh-only")


class NotWhole(EngineError):
    """Frames cannot stay on the GPU whole: something between the networks runs on the CPU only."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} runs on the CPU only, between networks on the GPU")


@dataclass(frozen=True, eq=False)
class Parts:
    """engines: by role. columns: which landmarks generator and lifter take. carry: `ImageTarget`'s.
    calibration: none in mesh-only."""

    topology: str
    engines: Mapping[str, Engine]
    body: Body
    skeleton: Skeleton
    columns: Mapping[str, np.ndarray]
    carry: np.ndarray
    lbs_weights: SparseWeights
    calibration: SparseWeights | None

    @cached_property
    def basis(self) -> np.ndarray:
        """(N, V, 3) float32: the template, then shape and pose blend shapes."""
        body = self.body
        shape = body.v_template.shape
        blends = [body.shapedirs, body.posedirs.reshape(*shape, -1)]
        moved = np.concatenate(blends, 2).transpose(2, 0, 1)
        return np.ascontiguousarray(np.concatenate([body.v_template[None], moved]), np.float32)

    @cached_property
    def rest(self) -> np.ndarray:
        """(1 + S, J, 3) float64: joints of the template, then what each shape moves them by."""
        shapes = self.basis[: 1 + self.body.num_betas].astype(np.float64)
        return np.einsum("jv,nvc->njc", self.body.J_regressor.astype(np.float64), shapes)

    @cached_property
    def landmark_joints(self) -> cuda.PoseJoints:
        """The mesh's own BlazePose landmarks."""
        return self._pose_joints("blazepose33")

    @cached_property
    def source_joints(self) -> cuda.PoseJoints:
        """The mesh's joints of the target's skeleton (Eq. 2)."""
        return self._pose_joints(self.skeleton.name)

    def _pose_joints(self, skeleton: str) -> cuda.PoseJoints:
        regressor = self.body.regressor(skeleton)
        used = np.flatnonzero(regressor.any(0))  # a few hundred vertices of many thousand
        weights = self.lbs_weights.to_dense(len(self.body.parents))[0][used]
        basis = self.basis[:, used].astype(np.float64)
        return cuda.PoseJoints(joint_tables(regressor[:, used], weights, basis))

    @cached_property
    def calibrator(self) -> cuda.SkinCalibrator:
        assert self.calibration is not None
        return cuda.SkinCalibrator(self.skeleton, self.calibration, self.lbs_weights)

    @property
    def map_size(self) -> int:
        """Cells to a side of the tracker's heat maps."""
        maps = self.engines["tracker"].outputs.get("heatmaps")
        return int(maps.shape[1]) if maps else 1

    @property
    def torch(self) -> bool:
        """Whether torch runs engines, which allocates while it does."""
        return any(engine.backend == "torch-cuda" for engine in self.engines.values())

    def constants(self) -> dict[str, np.ndarray]:
        """What the kernels read and nothing writes."""
        trust = self.carry / np.maximum(self.carry.sum(1, keepdims=True), 1e-6)
        found = {"rest": self.rest, "basis": self.basis, "carry": self.carry, "trust": trust}
        found["parents"] = self.body.parents.astype(np.int32)
        for network, columns in self.columns.items():
            found[f"{network}_columns"] = columns
        return found


def parts_of(
    assembly: Assembly, backend: str, engines: Mapping[str, Engine] | None = None
) -> Parts:
    """The parts of a pipeline that is assembled for the CPU otherwise.

    engines: by role, instead of the bundle's.

    Raises: NotWhole for what only the CPU runs; EngineError for engines that cannot run here.
    """
    networks, topology = assembly.networks, assembly.topology
    if topology not in TOPOLOGIES:
        raise NotWhole(f"topology {topology!r}")
    if assembly.pose2d is not None or assembly.detector is not None:
        raise NotWhole("keypoints or a detector of your own")
    generator = networks.need("mesh-generator")
    stages = {"detector": networks.need("detector"), "tracker": networks.need("tracker")}
    stages["generator"] = generator
    if topology != "mesh-only":
        stages["lifter"] = networks.need("lifter")
    pose2d = networks.find("pose2d")
    if topology == "parallel" and pose2d is not None:
        if not takes_rois(pose2d):
            raise NotWhole(f"a 2D network over upright crops ({pose2d.name})")
        stages["pose2d"] = pose2d
    if "format" in stages["detector"].settings:
        raise NotWhole(f"a detector of boxes ({stages['detector'].name})")
    columns: dict[str, np.ndarray] = {}
    landmarks = get_skeleton("blazepose33")
    for role in ("generator", "lifter"):
        if role not in stages:
            continue
        if not takes_landmarks(stages[role]):
            raise NotWhole(f"a {role} that takes no landmarks ({stages[role].name})")
        names = stages[role].settings["landmarks"]
        columns[role] = np.array([landmarks.index(name) for name in names], np.int32)
    body, arrays, pair = assembly.model.body, networks.bundle.body(), assembly.pair
    bones = int((body.lbs_weights > 0).sum(1).max())
    if bones > MOST_BONES:
        raise NotWhole(f"a body of {bones} bones a vertex")
    calibration = None
    if topology != "mesh-only":
        if pair is None:
            raise EngineError("the bundle has no calibration weights: choose topology mesh-only")
        slots = (arrays[f"{pair.prefix}{part}"] for part in ("indices", "values", "offsets"))
        calibration = SparseWeights(*slots)
        if Perceptrons.read(arrays, pair.prefix, assembly.model, calibration):
            raise NotWhole("a calibration with perceptrons")
    names = {role: stage.name for role, stage in stages.items()}
    return Parts(
        topology,
        engines_of(networks.bundle, names, backend) if engines is None else engines,
        body,
        assembly.skeleton,
        columns,
        assembly.carry(),
        from_dense(body.lbs_weights, max_per_vertex=bones),
        calibration,
    )


def engines_of(bundle: Bundle, stages: Mapping[str, str], backend: str) -> dict[str, Engine]:
    """The engine of each role's stage. backend: of the GPU; "auto" takes the first that has all.

    Raises: EngineError, MissingDependency, BundleError: of the backend, or of each where it is
    "auto".
    """
    if backend != "auto":
        backend = backend_of_the_gpu(backend)
        return {role: bundle.engine(name, backend) for role, name in stages.items()}
    reasons = []
    for each in BACKENDS_OF_THE_GPU:
        try:
            return {role: bundle.engine(name, each) for role, name in stages.items()}
        except PchmrError as error:
            reasons.append(f"{each}: {error}")
    raise EngineError(f"no backend runs {bundle.manifest.name!r} on the GPU: {'; '.join(reasons)}")


def in_graph(engines: Iterable[Engine], graph: bool | None) -> bool:
    """Whether engines are to be part of a CUDA graph: by default where all can.

    Raises: EngineError where they are to be and one cannot.
    """
    unable = [engine.backend for engine in engines if not engine.caps.capturable]
    if graph and unable:
        raise EngineError(
            f"engines of {unable[0]} cannot be part of a CUDA graph: cuda_graph=False"
        )
    return not unable if graph is None else graph


def backend_of_the_gpu(backend: str) -> str:
    """The name as the table of backends has it. Raises: EngineError for one of the CPU."""
    backend = "torch-cuda" if backend == "torch" else backend
    if backend not in BACKENDS_OF_THE_GPU:
        raise EngineError(
            f"backend {backend!r} does not run on device 'cuda'; expected auto or one of "
            f"{', '.join(BACKENDS_OF_THE_GPU)}"
        )
    return backend
