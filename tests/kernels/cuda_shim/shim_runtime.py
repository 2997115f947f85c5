"""A stand-in for CuPy: host arrays that say they are on a GPU, and the kernels on the host.

`cuda*.py` and native/*.cu are run as they are; what is not are CuPy's own calls and the device.
"""

import ctypes
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pchmr_kernels import cuda_runtime

HERE = Path(__file__).parent


class FakeCuda:
    """Host memory under the face of a CUDA array."""

    def __init__(self, array, device=0, read_only=False):
        self.array, self.device, self.read_only = array, device, read_only

    @property
    def shape(self):
        return self.array.shape

    @property
    def __cuda_array_interface__(self):
        described = dict(self.array.__array_interface__)
        described["data"] = (described["data"][0], self.read_only)
        return described

    def __dlpack_device__(self):
        return cuda_runtime.CUDA, self.device


class OnlyDlpack:
    def __init__(self, array):
        self.hidden, self.shape = FakeCuda(array), array.shape

    def __dlpack_device__(self):
        return cuda_runtime.CUDA, 0


class ShimRuntime:
    def __init__(self, library, threads=16):
        self.library = ctypes.CDLL(str(library))
        self.library.shim_launch.argtypes = (
            *(ctypes.c_char_p, *[ctypes.c_uint] * 4),
            *(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int),
        )
        self.threads, self.multiprocessors = threads, 1
        self.skip, self.missing_bytes = -1, 0  # planted mistakes: a barrier, shared memory
        self.streams, self.launches, self.uploads = [], [], 0

    def upload(self, array):
        self.uploads += 1
        return FakeCuda(array.copy())

    def empty(self, shape, dtype):
        return FakeCuda(np.full(shape, np.nan if dtype.kind == "f" else 99, dtype))

    def import_dlpack(self, array):
        return array.hidden

    def device(self):
        return 0

    def processors(self):
        return self.multiprocessors

    @contextmanager
    def on(self, stream):
        self.streams.append(stream)
        yield

    def launch(self, kernel, grid, shared_bytes, job):
        self.launches.append((kernel, grid))
        whole = (*grid, 1)[:3]
        failed = self.library.shim_launch(
            *(kernel.encode(), *whole, self.threads),
            *(max(0, shared_bytes - self.missing_bytes), ctypes.byref(job), self.skip),
        )
        assert not failed, kernel


def find_compiler():
    """A C++20 compiler of GCC's family, whose sanitizers come with it; None where there is none."""
    return shutil.which("g++")


def build(folder, *flags):
    """The kernels as a library; once a folder and set of flags."""
    name = "_".join(("libshim", *(flag.strip("-").replace("=", "_") for flag in flags)))
    library = Path(folder) / f"{name}.so"
    if not library.exists():
        includes = [f"-I{HERE}", f"-I{cuda_runtime.NATIVE}"]
        warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
        command = [find_compiler(), "-std=c++20", "-O1", "-g", "-fPIC", "-shared", "-pthread"]
        command += [*warnings, *flags, *includes, str(HERE / "launch.cpp"), "-o", str(library)]
        subprocess.run(command, check=True)
    return library
