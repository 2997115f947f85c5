"""The kernels of a shim built under a sanitizer, run: `sanitized.py LIBRARY [MISTAKE ...]`.

A mistake is KERNEL:BARRIER, to run it without that one of its barriers, or KERNEL:short, with too
little shared memory; without any, all run as they are. What comes next is written to stderr.
"""

import sys

import numpy as np
from cuda_shim.shim_runtime import FakeCuda, ShimRuntime
from kernel_cases import case, sparse
from person_cases import person_calls

from pchmr_kernels import cuda, cuda_crops, cuda_gradients, cuda_runtime
from pchmr_kernels.joint_tables import joint_tables
from pchmr_kernels.skeletons import get_skeleton

BATCH, VERTICES = 32, 165  # four rows and two tiles a block


def kernels(rng):
    """Kernel -> a call that launches it alone."""
    skeleton = get_skeleton("smpl24")
    c = case(rng, skeleton, BATCH, VERTICES)
    c.source[0, 23] = c.source[0, 22]
    c.target[1, 5] = np.nan
    mesh, source, target = (FakeCuda(array) for array in (c.vertices, c.source, c.target))
    # Elsewhere within 16 bytes than the input, so that other threads write than have read.
    out = FakeCuda(np.zeros(c.vertices.size + 1, np.float32)[1:].reshape(c.vertices.shape))
    confidence = FakeCuda(rng.uniform(0, 1, c.source.shape[:2]))
    alpha = FakeCuda(rng.uniform(-1, 1, (BATCH, 23)))
    transforms, moves, delta, coefficients = (
        FakeCuda(rng.normal(size=(BATCH, *shape)).astype(np.float32))
        for shape in ((23, 3, 4), (24, 3, 4), (23, 3), (5,))
    )
    dense = cuda.DenseWeights(*map(FakeCuda, c.weights.to_dense(23)))
    half = FakeCuda(c.vertices.astype(np.float16))
    lbs_weights = sparse(rng, VERTICES, 24, 6)
    basis = rng.normal(size=(5, VERTICES, 3))
    tables = joint_tables(rng.dirichlet(np.ones(VERTICES), 24), lbs_weights.to_dense(24)[0], basis)
    calibrate = cuda.Calibrator(skeleton, c.weights, "torso", "fit")
    options = {"prealign": "torso", "scale": "fit"}
    skin = cuda.SkinCalibrator(skeleton, c.weights, lbs_weights, tables, **options)
    joints = cuda.PoseJoints(tables)
    frame = FakeCuda(rng.integers(0, 256, (20, 31, 3), np.uint8))
    affines = FakeCuda(rng.normal(size=(3, 2, 3)) * 10)

    def gradients(*names):
        inputs = {"vertices": mesh, "transforms": transforms, "delta": delta}
        inputs |= {"values": dense.values, "offsets": dense.offsets}
        wanted = {name: FakeCuda(np.empty_like(inputs[name].array)) for name in names}
        cuda_gradients.blend_gradients(mesh, mesh, transforms, dense, delta, wanted)

    return {
        "pchmr_calibrate": lambda: calibrate(mesh, source, target, confidence, alpha, out),
        "pchmr_skin_calibrate": lambda: skin(mesh, moves, target, coefficients, out=out),
        "pchmr_blend": lambda: cuda.blend(mesh, transforms, c.weights, delta, out),
        "pchmr_blend ": lambda: cuda.blend(half, transforms, dense),
        "pchmr_pose_joints": lambda: joints(coefficients, moves),
        "pchmr_crop": lambda: cuda_crops.crop(frame, affines, size=9, extend=True),
        "pchmr_blend_grad_vertices": lambda: gradients("vertices"),
        "pchmr_blend_grad_bones": lambda: gradients("transforms", "delta"),
        "pchmr_blend_grad_weights": lambda: gradients("values", "offsets"),
        **person_calls(rng),
    }


def main(library, *mistakes):
    shim = ShimRuntime(library)
    cuda_runtime.runtime = lambda: shim
    calls = kernels(np.random.default_rng(0))
    assert {name.strip() for name in calls} == cuda_runtime.KERNELS.keys()
    for mistake in mistakes or calls:
        kernel, _, what = mistake.partition(":")
        shim.skip = int(what) if what.isdigit() else -1
        # That kernel needs memory by the thread, of which there are fewer here.
        fewer = 4 * cuda_gradients.SUMS * (cuda_runtime.BLOCK - shim.threads)
        shim.missing_bytes = 16 + fewer * ("grad_bones" in kernel) if what == "short" else 0
        print(f"run {mistake}", file=sys.stderr, flush=True)
        calls[kernel]()


if __name__ == "__main__":
    main(*sys.argv[1:])
