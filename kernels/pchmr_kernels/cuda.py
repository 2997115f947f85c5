"""The fused CUDA kernels: `native.blend` and `calibration.Calibrator` for arrays on a GPU.

Arrays are as cuda_runtime.py has them. A call queues one launch on the caller's stream and returns:
inputs must be ready on that stream, and must live until it has run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pchmr_kernels import calibration, cuda_runtime, reference
from pchmr_kernels.cuda_runtime import (
    FLOAT32,
    INT32,
    REALS,
    RealsStruct,
    Runtime,
    check_rows,
    refuse,
    shape_of,
    stream_address,
    view,
)
from pchmr_kernels.cuda_weights import (
    TILE,
    DenseWeights,
    tile_order,
    upload_rows,
    upload_weights,
)
from pchmr_kernels.joint_tables import JointTables, JointTablesStruct
from pchmr_kernels.skeletons import Skeleton
from pchmr_kernels.weights import SparseWeights, WeightsStruct

# As in native/pchmr_cuda.h and pchmr_kernels.h.
BLOCKS_A_PROCESSOR = 8
ROWS_A_BLOCK = 4
MOST_JOINTS = 128  # and bones, and axes
SHARED_BYTES = 49152  # that every device gives a block unasked; 45184 is the most one takes

MESHES = (np.float32, np.float16)


class JobStruct(ctypes.Structure):
    """pchmr_cuda_job."""

    _fields_ = (
        ("weights", WeightsStruct),
        ("places", ctypes.c_void_p),
        ("bones", calibration.BonesStruct),
        ("batch", ctypes.c_int64),
        ("rows", ctypes.c_int32),
        ("vertices", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("half", ctypes.c_int32),
        *((name, RealsStruct) for name in ("source", "target", "confidence", "alpha")),
        *((name, ctypes.c_void_p) for name in ("transforms", "delta", "centre")),
        ("skin", WeightsStruct),
        ("skin_bones", ctypes.c_int32),
        ("tables", JointTablesStruct),
        ("coefficients", ctypes.c_void_p),
    )


def blend(
    vertices: Any,
    transforms: Any,
    weights: SparseWeights | DenseWeights,
    delta: Any = None,
    out: Any = None,
    centre: Any = None,
    stream: Any = None,
) -> Any:
    """out_j = sum_s A_js (R v_j + t)_i + (A W)_js delta_i with i = indices_js: (B, V, 3).

    Args:
        vertices: (B, V, 3) float32 or float16, the type of the result; sums are in float32.
        transforms: (B, K, 3, 4) float32, R beside t; delta: (B, K, 3) float32, none for skinning.
        weights: sparse ones are uploaded, and waited for, at the first call with them (so before
            any capture into a graph), and kept as long as they live.
        out: (B, V, 3), as `vertices` and maybe the same; else a CuPy array is allocated.
        centre: (B, 3) float32, taken off the vertices first and added last.
        stream: of CuPy, torch or PyCUDA, or its address; CuPy's current one where none is given.
    Raises: TypeError for an array on the CPU or of another dtype, ValueError for another shape, a
    strided array or too large a job, ImportError where CuPy is not installed.
    """
    run = cuda_runtime.runtime()
    bones = shape_of("transforms", transforms, 4)[1]
    uploaded = upload_weights(run, weights, bones, delta is not None)
    refuse(bones > MOST_JOINTS, f"{bones} bones; at most {MOST_JOINTS}")
    needed = uploaded.bones_needed
    refuse(bones < needed, f"transforms are of {bones} bones; weights name {needed}")
    batch = shape_of("vertices", vertices, 3)[0]
    job = JobStruct(weights=uploaded.struct, places=uploaded.places, batch=batch)
    job.bones.bones = bones
    with run.on(stream_address(stream)):
        arrays = [
            view(run, "transforms", transforms, (batch, bones, 3, 4), FLOAT32),
            view(run, "delta", delta, (batch, bones, 3), FLOAT32),
            view(run, "centre", centre, (batch, 3), FLOAT32),
        ]
        job.transforms, job.delta, job.centre = (array.pointer for array in arrays)
        return _launch(run, "pchmr_blend", job, vertices, out)


class Calibrator:
    """`calibration.Calibrator` on the GPU, with the same arguments; `weights` may be dense too.

    Bound to the device that is current when it is made. Up to 128 joints and bones.
    """

    def __init__(
        self,
        skeleton: Skeleton | npt.NDArray[np.integer[Any]],
        weights: SparseWeights | DenseWeights,
        prealign: str = "none",
        scale: str = "none",
        thresholds: tuple[float, float] = reference.THRESHOLDS,
        root: int = 0,
        torso: Sequence[int] = (),
        axes: Sequence[tuple[int, int]] = (),
        joints: int | None = None,
    ) -> None:
        run = cuda_runtime.runtime()
        checked = weights if isinstance(weights, SparseWeights) else NO_WEIGHTS
        host = calibration.Calibrator(
            skeleton, checked, prealign, scale, thresholds, root, torso, axes, joints
        )
        self.joints, self.bones, self.weights = host.joints, host.bones, weights
        struct = calibration.BonesStruct.from_buffer_copy(host._bones)
        most = max(self.joints, self.bones, struct.n_axes)
        refuse(
            most > MOST_JOINTS,
            f"{self.joints} joints, {self.bones} bones and {struct.n_axes} axes; at most "
            f"{MOST_JOINTS} of each",
        )
        self._tables = [run.upload(array) for array in host._arrays]
        pointers = [view(run, "bones", table, None, INT32).pointer for table in self._tables]
        struct.pairs, struct.order, struct.axes, struct.torso = pointers
        self._struct, self._device = struct, run.device()
        self._uploaded = upload_weights(run, weights, self.bones, True)

    def __call__(
        self,
        vertices: Any,
        source: Any,
        target: Any,
        confidence: Any = None,
        alpha: Any = None,
        out: Any = None,
        stream: Any = None,
    ) -> Any:
        """The calibrated mesh, its root where the source's is: (B, V, 3), the dtype of `vertices`.

        Args:
            vertices: (B, V, 3) float32 or float16; float16 is for meshes near the origin.
            source, target: (B, J, 3) float32 or float64, the target NaN where missing.
            confidence: (B, J), alpha: (B, K) radians, float32 or float64.
            out, stream: see `blend`, and there for what is raised.
        """
        run = cuda_runtime.runtime()
        check_device(self, run, self._device)
        with run.on(stream_address(stream)):
            job = self._job(run, vertices, source, target, confidence, alpha)
            refuse(source is None or target is None, "source and target must be given")
            return _launch(run, "pchmr_calibrate", job, vertices, out)

    def _job(
        self, run: Runtime, vertices: Any, source: Any, target: Any, confidence: Any, alpha: Any
    ) -> JobStruct:
        batch, J, K = shape_of("vertices", vertices, 3)[0], self.joints, self.bones
        arrays = [
            view(run, "source", source, (batch, J, 3), REALS),
            view(run, "target", target, (batch, J, 3), REALS),
            view(run, "confidence", confidence, (batch, J), REALS),
            view(run, "alpha", alpha, (batch, K), REALS),
        ]
        job = JobStruct(self._uploaded.struct, self._uploaded.places, self._struct, batch)
        job.source, job.target, job.confidence, job.alpha = (array.reals for array in arrays)
        return job


class PoseJoints:
    """Joints of the skinned mesh by contracted tables: `JointTables` on the GPU."""

    def __init__(self, tables: JointTables) -> None:
        run = cuda_runtime.runtime()
        refuse(tables.joints > MOST_JOINTS, f"{tables.joints} joints; at most {MOST_JOINTS}")
        self.joints, self.terms, self._device = tables.joints, tables.terms, run.device()
        self.bones_needed = int(tables.bones.max(initial=-1)) + 1
        self._arrays = [run.upload(x) for x in (tables.first, tables.bones, tables.values)]
        pointers = [
            view(run, "tables", array, None, (*INT32, *FLOAT32)).pointer for array in self._arrays
        ]
        self.struct = JointTablesStruct(tables.terms, len(tables.bones), *pointers)

    def __call__(
        self, coefficients: Any, transforms: Any, out: Any = None, stream: Any = None
    ) -> Any:
        """(B, J, 3) float32; coefficients (B, N), transforms (B, K, 3, 4) float32 of the skinning.

        out: (B, J, 3) float32, else allocated; stream and what is raised: see `blend`.
        """
        run = cuda_runtime.runtime()
        check_device(self, run, self._device)
        batch = shape_of("coefficients", coefficients, 2)[0]
        job = JobStruct(batch=batch, rows=1)
        job.bones.joints = self.joints
        with run.on(stream_address(stream)):
            self.fill(run, job, coefficients, transforms)
            out = run.empty((batch, self.joints, 3), np.dtype(np.float32)) if out is None else out
            job.out = view(run, "out", out, (batch, self.joints, 3), FLOAT32).pointer
            check_rows(batch)
            if batch:
                run.launch("pchmr_pose_joints", (1, batch), shared_bytes(job), job)
        return out

    def fill(self, run: Runtime, job: JobStruct, coefficients: Any, transforms: Any) -> None:
        """What a job reads of the tables."""
        shape = (job.batch, self.terms)
        job.coefficients = view(run, "coefficients", coefficients, shape, FLOAT32).pointer
        job.tables = self.struct
        fill_skinning(run, job, transforms, self.bones_needed)


class SkinCalibrator(Calibrator):
    """Skinning, mesh-to-pose and calibration in one launch: the posed mesh is never written.

    Args beside a Calibrator's:
        lbs_weights: of the body's skinning; both weights are sparse here.
        tables: of the skeleton's regressor and these very lbs_weights, see joint_tables.py; not
            needed where every call gives `source`.
    """

    def __init__(
        self,
        skeleton: Skeleton | npt.NDArray[np.integer[Any]],
        weights: SparseWeights,
        lbs_weights: SparseWeights,
        tables: JointTables | None = None,
        **options: Any,
    ) -> None:
        V, skinned = len(weights.indices), len(lbs_weights.indices)
        refuse(skinned != V, f"lbs_weights are of {skinned} vertices; weights of {V}")
        super().__init__(skeleton, weights, **options)
        run, order = cuda_runtime.runtime(), tile_order(weights)
        slots = max(weights.indices.shape[1], lbs_weights.indices.shape[1])
        self._uploaded, self._skin = (
            upload_rows(run, each, order, slots) for each in (weights, lbs_weights)
        )
        self._pose_joints = None if tables is None else PoseJoints(tables)
        joints = self.joints if tables is None else tables.joints
        refuse(
            joints != self.joints,
            f"tables are of {joints} joints; the skeleton has {self.joints}",
        )

    def __call__(  # type: ignore[override]  # it makes the mesh itself
        self,
        vertices: Any,
        transforms: Any,
        target: Any,
        coefficients: Any = None,
        source: Any = None,
        confidence: Any = None,
        alpha: Any = None,
        out: Any = None,
        stream: Any = None,
    ) -> Any:
        """The calibrated mesh: (B, V, 3), the dtype of `vertices`.

        Args:
            vertices: (B, V, 3) at rest: the template with shape and pose blend shapes added.
            transforms: (B, K', 3, 4) float32, of the skinning, the body near the origin.
            coefficients: (B, N) float32 of the tables' terms: the source joints follow from them.
            source: (B, J, 3), instead of coefficients: of `PoseJoints`, where there are many terms.
            target, confidence, alpha, out, stream: as a Calibrator's.
        """
        run = cuda_runtime.runtime()
        check_device(self, run, self._device)
        with run.on(stream_address(stream)):
            job = self._job(run, vertices, source, target, confidence, alpha)
            refuse(target is None, "target must be given")
            neither = (source is None) == (coefficients is None)
            refuse(neither, "one of source and coefficients must be given")
            if source is None:
                no_tables = "coefficients need tables: give them when the SkinCalibrator is made"
                refuse(self._pose_joints is None, no_tables)
                assert self._pose_joints is not None
                self._pose_joints.fill(run, job, coefficients, transforms)
            fill_skinning(run, job, transforms, self._skin.bones_needed)
            job.skin = self._skin.struct
            return _launch(run, "pchmr_skin_calibrate", job, vertices, out)


def fill_skinning(run: Runtime, job: JobStruct, transforms: Any, needed: int) -> None:
    """The skinning transforms (B, K, 3, 4) of a job, of `needed` bones at least."""
    bones = shape_of("transforms", transforms, 4)[1]
    refuse(bones < needed, f"transforms are of {bones} bones; the body names {needed}")
    refuse(bones > MOST_JOINTS, f"{bones} bones; at most {MOST_JOINTS}")
    shape = (job.batch, bones, 3, 4)
    job.transforms = view(run, "transforms", transforms, shape, FLOAT32).pointer
    job.skin_bones = bones


def shared_bytes(job: JobStruct) -> int:
    """Of a block, as pchmr_cuda_shared_bytes has it."""
    J, K = job.bones.joints, job.bones.bones
    records = 16 * (5 * K + 3 * job.skin_bones)
    tables = 4 * 24 * J if job.tables.values else 0
    scratch = 24 * (3 * J + job.bones.n_axes + K) + 8 * J + tables
    return int(job.rows * (records + 128 + max(scratch, 12 * TILE + 16)))


def check_device(bound: Any, run: Runtime, device: int) -> None:
    """Raises: ValueError where another device than that one is current."""
    name, now = type(bound).__name__, run.device()
    refuse(now != device, f"this {name} is of device {device}; the current one is {now}")


def _launch(run: Runtime, kernel: str, job: JobStruct, vertices: Any, out: Any) -> Any:
    shape = (job.batch, job.weights.vertices, 3)
    check_rows(job.batch)
    mesh = view(run, "vertices", vertices, shape, MESHES)
    out = run.empty(shape, mesh.dtype) if out is None else out
    written = view(run, "out", out, shape, (mesh.dtype.type,))
    if 0 in shape:
        return out
    job.vertices, job.out = mesh.pointer, written.pointer
    job.half = mesh.dtype == np.float16
    # As many rows a block as leave the device full, since it reads its weights once for all of
    # them; and no more blocks than fill it, since each turns the joints again.
    tiles, full = -(-shape[1] // TILE), BLOCKS_A_PROCESSOR * run.processors()
    job.rows = ROWS_A_BLOCK
    if job.batch * tiles < full * job.rows or shared_bytes(job) > SHARED_BYTES:
        job.rows = 1
    size = shared_bytes(job)
    groups = -(-job.batch // job.rows)
    run.launch(kernel, (min(tiles, -(-full // groups)), groups), size, job)
    return out


NO_WEIGHTS = SparseWeights(
    np.zeros((0, 1), np.int32), np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32)
)
