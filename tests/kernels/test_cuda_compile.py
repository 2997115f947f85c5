"""The CUDA kernels compiled for every supported device, on a machine that may have none."""

import ctypes
import os
import re
import shutil
import subprocess
import sys

import pytest

from pchmr_kernels import cuda, cuda_runtime
from pchmr_kernels.cuda_runtime import KERNELS, NATIVE
from pchmr_kernels.weights import WeightsStruct

ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
FILES = tuple(sorted(set(KERNELS.values())))
MOST_REGISTERS = {  # a thread: 168 leave three blocks to a processor, 128 four, 80 six, 64 eight
    "pchmr_skin_calibrate": 168,
    "pchmr_calibrate": 128,
    "pchmr_blend": 128,
    "pchmr_pose_joints": 80,
}


def most_registers(kernel: str) -> int:
    """As its launch bounds have it; of a person's kernels a block or so runs: no limit hurts."""
    return MOST_REGISTERS.get(kernel, 128 if kernel.startswith("pchmr_person") else 64)


def check_resources(log: str, architectures, files=FILES) -> None:
    pattern = r"entry function '(\w+)' for 'sm_(\d+)'(?:(?!entry function).)*?Used (\d+) registers"
    found = {
        (kernel, int(sm)): int(registers)
        for kernel, sm, registers in re.findall(pattern, log, re.DOTALL)
    }
    kernels = [kernel for kernel, file in KERNELS.items() if file in files]
    assert set(found) == {(kernel, sm) for kernel in kernels for sm in architectures}
    for (kernel, sm), registers in found.items():
        assert registers <= most_registers(kernel), (kernel, sm, registers)
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", log)
    assert len(spills) >= 2 * len(found)
    assert set(spills) == {"0"}, log


def nvcc(*arguments) -> str:
    """What nvcc says, warnings being errors."""
    if shutil.which("nvcc") is None:
        pytest.skip("not tested: compiling the CUDA kernels with nvcc (not installed here)")
    flags = ["-std=c++17", "-Xcompiler=-fPIC,-Wall", "--threads=2", "-Werror=all-warnings"]
    command = ["nvcc", *flags, *map(str, arguments), "--ptxas-options=-v"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The C ABI as a library for all devices at once, and what the assembler said.

    From one intermediate form, that of the oldest device: what a driver does with it, too.
    """
    library = tmp_path_factory.mktemp("cuda") / "libpchmr_cuda.so"
    codes = ",".join(f"sm_{sm}" for sm in ARCHITECTURES)
    target = f"-gencode=arch=compute_{ARCHITECTURES[0]},code=[{codes}]"
    files = ["calibrate_launch.cu", *(file for file in FILES if file != "calibrate.cu")]
    log = nvcc("-shared", target, *(NATIVE / file for file in files), "-o", library)
    return ctypes.CDLL(str(library)), log


def test_nvcc_compiles_every_kernel_within_its_registers_and_without_spills(compiled):
    check_resources(compiled[1], ARCHITECTURES)


@pytest.mark.slow
@pytest.mark.parametrize("sm", ARCHITECTURES)
def test_the_compiler_of_each_device_too(sm, tmp_path):
    for file in FILES:
        log = nvcc("-cubin", f"-arch=sm_{sm}", NATIVE / file, "-o", tmp_path / "kernels.cubin")
        check_resources(log, [sm], [file])


def check_nvrtc(sm: int) -> None:
    """Compile with the options that CuPy gets from cuda_runtime.py."""
    pytest.importorskip("cupy", reason="not tested: compiling with NVRTC (no cupy here)")
    from cupy.cuda import nvrtc

    try:
        version = nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"not tested: compiling with NVRTC ({error})")
    if version < (13, 0):
        pytest.skip(f"not tested: compiling with NVRTC (13 knows all devices; here is {version})")
    for file in FILES:
        program = nvrtc.createProgram(cuda_runtime.source(file), file, (), ())
        options = (*cuda_runtime.OPTIONS, "-ftz=true", f"-arch=sm_{sm}")  # the last two are CuPy's
        nvrtc.compileProgram(program, (*options, "--ptxas-options=-v"))
        check_resources(nvrtc.getProgramLog(program), [sm], [file])


def test_nvrtc_compiles_every_kernel_as_nvcc_does():
    check_nvrtc(90)


@pytest.mark.slow
@pytest.mark.parametrize("sm", ARCHITECTURES)
def test_nvrtc_for_each_device(sm):
    check_nvrtc(sm)


def test_the_c_abi_refuses_what_is_too_large_and_says_why_nothing_was_launched(compiled):
    library = compiled[0]
    library.pchmr_cuda_last_error.restype = ctypes.c_char_p

    def refused(job):
        assert library.pchmr_cuda_calibrate(ctypes.byref(job), None) == 1
        return library.pchmr_cuda_last_error().decode()

    job = cuda.JobStruct(batch=1, weights=WeightsStruct(vertices=5, slots=4, indices=16))
    job.bones.joints = job.bones.bones = 129
    assert refused(job) == "129 joints, 129 bones, 0 axes and 0 skinning bones; at most 128 of each"
    job.bones.joints = job.bones.bones = 2
    job.weights.slots = 3
    assert refused(job) == "weights.slots is 3; expected 4 or 8: pad with bone 0 and zeros"
    job.weights.indices = None
    assert refused(job) == "dense weights of 3 bones; there are 2"
    job.batch = 65536
    assert refused(job) == "a batch of 65536 rows; at most 65535: launch it in parts"
    job.batch = 0
    job.weights.slots = 2
    assert library.pchmr_cuda_blend(ctypes.byref(job), None) == 0
    job.skin = WeightsStruct(vertices=5, slots=4, indices=16)
    assert library.pchmr_cuda_skin_calibrate(ctypes.byref(job), None) == 1
    assert b"weights and skin differ in form" in library.pchmr_cuda_last_error()
    job.rows = 4
    assert library.pchmr_cuda_shared_bytes(ctypes.byref(job)) == cuda.shared_bytes(job)


def test_cupy_takes_the_address_of_a_stream():
    pytest.importorskip("cupy", reason="not tested: streams of CuPy (no cupy here)")
    assert cuda_runtime.runtime().on(64).ptr == 64


def test_without_cupy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r"need CuPy, .* pip install 'pchmr\[cuda13\]', or"):
        cuda_runtime.runtime.__wrapped__()


def test_importing_the_room_loads_no_cuda_library():
    if not os.path.exists("/proc/self/maps"):
        pytest.skip("not tested: which libraries an import loads (no /proc here)")
    room = NATIVE.parent
    names = sorted(path.stem for path in room.glob("*.py") if path.stem != "__init__")
    assert "cuda" in names
    code = (
        "import importlib, sys\nsys.modules['cupy'] = None\n"
        f"for name in {names}: importlib.import_module('pchmr_kernels.' + name)\n"
        "print(open('/proc/self/maps').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(room.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "libpython" in done.stdout or "python3" in done.stdout
    assert not re.search(r"lib(cuda|cudart|nvrtc)", done.stdout)


def test_a_changed_header_changes_the_text_that_cupy_keeps_kernels_by(monkeypatch, tmp_path):
    shutil.copytree(NATIVE, tmp_path / "native")
    before = cuda_runtime.source("calibrate.cu")
    monkeypatch.setattr(cuda_runtime, "NATIVE", tmp_path / "native")
    assert cuda_runtime.source("calibrate.cu") == before
    with (tmp_path / "native" / "calibration.h").open("a") as header:
        header.write("// more\n")
    assert cuda_runtime.source("calibrate.cu") != before
