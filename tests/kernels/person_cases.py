"""Arrays at random for the kernels of person.cu, by their names."""

import numpy as np
from cuda_shim.shim_runtime import FakeCuda

from pchmr_kernels import cuda_person
from pchmr_kernels.cuda_person import ARRAYS, KERNELS

SIZES = {"batch": 2, "joints": 3, "target_joints": 5, "shapes": 2, "terms": 1 + 2 + 18}
SIZES |= {"vertices": 50, "columns_taken": 7, "map_size": 8, "1 + shapes": 3}
CROP = 64


def host_arrays(rng, kernel, **sizes):
    """Name -> an array; what is written is NaN so far."""
    sizes = SIZES | sizes
    arrays = {}
    for name in (*KERNELS[kernel].reads, *KERNELS[kernel].writes):
        dtype, dims = ARRAYS[name]
        shape = tuple(d if isinstance(d, int) else sizes[d] for d in dims)
        arrays[name] = rng.uniform(1, 60, shape).astype(dtype)
    if "parents" in arrays:
        arrays["parents"][:] = np.arange(sizes["joints"]) - 1
    if "columns" in arrays:
        arrays["columns"][:] = rng.permutation(33)[: sizes["columns_taken"]]
    for name in set(KERNELS[kernel].writes) - {"next_roi"}:
        arrays[name][:] = np.nan
    return arrays


def person_arrays(rng, kernel, **sizes):
    """The same on the GPU that is none."""
    return {name: FakeCuda(array) for name, array in host_arrays(rng, kernel, **sizes).items()}


def person_calls(rng):
    """Kernel -> a call that launches it alone."""

    def call(kernel):
        arrays = person_arrays(rng, kernel)
        return lambda: cuda_person.queue(kernel, arrays, crop_size=CROP)

    return {kernel: call(kernel) for kernel in KERNELS}
