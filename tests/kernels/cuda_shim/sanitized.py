"""Runs the kernels of a shim built under a sanitizer: `sanitized.py LIBRARY [short | BARRIER ...]`.

"short": with too little shared memory. Numbers: once without each of these barriers. What comes
next is written to stderr.
"""

import sys

import numpy as np
from cuda_shim.shim_runtime import FakeCuda, ShimRuntime
from kernel_cases import case

from pchmr_kernels import cuda
from pchmr_kernels.skeletons import get_skeleton


def main(library, *barriers):
    shim = ShimRuntime(library)
    cuda.runtime = lambda: shim
    rng, skeleton = np.random.default_rng(0), get_skeleton("smpl24")
    c = case(rng, skeleton, batch=2, vertices=37)
    c.source[0, 23] = c.source[0, 22]
    c.target[1, 5] = np.nan
    arrays = [FakeCuda(array) for array in (c.vertices, c.source, c.target)]
    confidence = FakeCuda(rng.uniform(0, 1, c.source.shape[:2]))
    alpha = FakeCuda(rng.uniform(-1, 1, (2, 23)))
    calibrate = cuda.Calibrator(skeleton, c.weights, "torso", "fit")
    if barriers == ("short",):
        barriers, shim.missing_bytes = (), 16
    for skip in barriers or (-1,):
        print(f"without barrier {skip}", file=sys.stderr, flush=True)
        shim.skip = int(skip)
        calibrate(*arrays, confidence, alpha)
    transforms = FakeCuda(rng.normal(size=(2, 23, 3, 4)).astype(np.float32))
    delta = FakeCuda(rng.normal(size=(2, 23, 3)).astype(np.float32))
    dense = cuda.DenseWeights(*map(FakeCuda, c.weights.to_dense(23)))
    half = FakeCuda(c.vertices.astype(np.float16))
    shim.skip = 0 if barriers else -1
    print("blend", file=sys.stderr, flush=True)
    cuda.blend(half, transforms, dense, delta)


if __name__ == "__main__":
    main(*sys.argv[1:])
