"""The CUDA kernels compiled for every supported device, on a machine that may have none."""

import ctypes
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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


def nvrtc_libraries():
    """NVRTC's libraries of the wheels that are installed, by file name."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else ()
    found = (path for folder in folders for path in Path(folder).glob("*/lib/libnvrtc.so.*"))
    return {path.name: path for path in sorted(found)}


class Nvrtc:
    """The compiler itself, so that neither CuPy nor a driver is needed."""

    def __init__(self, path):
        for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(path))
        major, minor = ctypes.c_int(), ctypes.c_int()
        assert not self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = major.value, minor.value

    def compile(self, file, *options):
        """What it says; it must compile."""
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        text = cuda_runtime.source(file).encode()
        create = self.library.nvrtcCreateProgram
        assert not create(ctypes.byref(program), text, file.encode(), 0, None, None)
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = self.library.nvrtcCompileProgram(program, len(options), given)
        self.library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetProgramLog(program, log)
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        assert not failed, log.value.decode()
        return log.value.decode()


def check_nvrtc(sm: int) -> None:
    """Compile with the options that CuPy gets from cuda_runtime.py and those that it adds."""
    libraries = nvrtc_libraries()
    if not libraries:
        pytest.skip("not tested: compiling with NVRTC (pip install nvidia-cuda-nvrtc-cu12)")
    for path in libraries.values():
        nvrtc = Nvrtc(path)
        if sm > 90 and nvrtc.version < (13, 0):
            pytest.skip(f"not tested: NVRTC {nvrtc.version} knows no sm_{sm}")
        added = "-ftz=true", "--device-as-default-execution-space", f"-arch=sm_{sm}"
        for file in FILES:
            log = nvrtc.compile(file, *cuda_runtime.OPTIONS, *added, "--ptxas-options=-v")
            check_resources(log, [sm], [file])


def test_nvrtc_compiles_every_kernel_as_nvcc_does():
    check_nvrtc(90)


def test_nvrtc_needs_no_option_that_cupy_adds():
    """CuPy 14 says that functions are the device's, earlier ones do not; NVRTC 12 takes it once."""
    for path in nvrtc_libraries().values():
        Nvrtc(path).compile("crop.cu", *cuda_runtime.OPTIONS, "-arch=sm_90")


def test_some_compiler_is_here():
    """Else nothing above was tested, and nobody would see it."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("not tested: the CUDA kernels are compiled on Linux, x86-64")
    assert shutil.which("nvcc") or nvrtc_libraries(), "no CUDA compiler: pip install 'pchmr[dev]'"


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


def test_a_kernel_is_looked_up_once_and_gets_its_job_by_value():
    """As CuPy has it: an array of one element, as large as the job; a stream stays its owner's."""
    looked_up, calls = [], []

    class Module:
        def __init__(self, code, options):
            assert options == cuda_runtime.OPTIONS

        def get_function(self, name):
            looked_up.append(name)
            return lambda grid, block, args, shared_mem: calls.append(
                (grid, block, args[0], shared_mem)
            )

    class Stream:
        @classmethod
        def from_external(cls, stream):
            return stream.__cuda_stream__()

    old = SimpleNamespace(Stream=object, ExternalStream=lambda address: ("old", address))
    cupy = SimpleNamespace(RawModule=Module, cuda=SimpleNamespace(Stream=Stream))
    run = cuda_runtime.CupyRuntime(cupy)
    job = cuda.JobStruct(batch=3)
    for _ in range(2):
        run.launch("pchmr_blend", (2, 3), 64, job)
    assert looked_up == ["pchmr_blend"]
    (grid, block, by_value, shared), _ = calls
    assert (grid, block, shared, by_value.size) == ((2, 3), (128,), 64, 1)
    assert by_value.tobytes() == bytes(job)
    assert run.on(7) == (0, 7)
    cupy.cuda = old
    assert run.on(7) == ("old", 7)


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
