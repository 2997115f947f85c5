"""`make gpu-check` and benchmarks/gpu.py where there is no GPU; what they measure, on the CPU."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_shim.shim_runtime import FakeCuda

from pchmr_kernels import cuda_runtime

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PARTS = ("kernels", "pipeline", "sanitizer", "training")

torch = pytest.importorskip("torch")


def driver():
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


@pytest.fixture
def gpu(monkeypatch):
    """benchmarks/gpu.py as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


@pytest.fixture
def on_the_cpu(shim, gpu, monkeypatch):
    """Tensors of the CPU pass for the GPU's, and the kernels run there."""
    torch.set_num_threads(1)
    shim.import_dlpack = lambda tensor: FakeCuda(tensor.detach().numpy())
    monkeypatch.setattr(cuda_runtime, "_device", lambda name, array: (cuda_runtime.CUDA, 0))
    return gpu


def options(gpu, *arguments):
    few = ["--vertices", "150", "--copied", "10000", "--seconds", "0.01", "--batches", "1", "2"]
    return gpu.parser().parse_args([*few, "--training-batches", "2", *arguments])


@pytest.mark.skipif(driver() is not None, reason="there is a driver here")
@pytest.mark.parametrize("parts", [(), ("kernels",)])
def test_without_a_gpu_every_part_says_so_and_nothing_fails(parts):
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    command = ["make", "--no-print-directory", "gpu-check", f"PYTHON={sys.executable}"]
    done = subprocess.run(
        [*command, f"PART={' '.join(parts)}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "not tested" in line]
    assert said == [f"{part}: not tested: no GPU" for part in parts or PARTS]


@pytest.mark.skipif(driver() is not None, reason="there is a driver here")
def test_the_benchmark_too_says_so_and_writes_nothing(gpu, capsys, tmp_path):
    gpu.main(["--json", str(tmp_path / "figures.json")])
    assert capsys.readouterr().out.splitlines() == [
        f"{part}: not tested: no GPU" for part in ("kernels", "training", "pipeline")
    ]
    assert not list(tmp_path.iterdir())


def test_an_unknown_part_is_named(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_check

    assert gpu_check.main(["kernel"]) == 2
    assert "unknown part kernel; expected kernels, pipeline, " in capsys.readouterr().out


def test_files_whose_imports_are_not_here_are_reported_and_left_out(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_check

    files = gpu_check.gpu_tests("kernels") + gpu_check.gpu_tests("training")
    assert "tests/kernels/test_cuda_gpu.py" in files
    assert "tests/training/test_fused_blend.py" in files
    assert "not tested" not in capsys.readouterr().out
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_one.py").write_text("import nowhere.at\n@pytest.mark.gpu\ndef f(): 0")
    (tmp_path / "tests/test_two.py").write_text("import elsewhere\n")
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setitem(gpu_check.TESTS, "kernels", ("tests",))
    assert gpu_check.gpu_tests("kernels") == []
    said = capsys.readouterr().out
    assert said == "kernels: not tested: test_one.py, which needs nowhere\n"


def test_kernels_and_training_are_measured_to_the_end(on_the_cpu, capsys):
    gpu = on_the_cpu
    given = options(gpu, "--part", "kernels", "training")
    report = gpu.measure(gpu.Device("cpu"), given)
    rows = report["kernels"]["batches"]
    assert [row["batch"] for row in rows] == [1, 2]
    ours = {"fused", "fused fp16", "fused dense", "fused skinning", "fused calibrate"}
    assert rows[0]["forms"].keys() == ours | {"torch per bone", "torch factored", "lbs"}
    assert rows[0]["floor_ms"] > 0
    assert rows[0]["in_graph_us"].keys() == {"fused", "fused calibrate"}
    assert report["training"]["batches"][0]["forms"].keys() == {"fused", "torch factored"}
    gpu.show(report)
    table = capsys.readouterr().out
    assert "kernels, batch 2, floor" in table
    assert "x floor, 1.0 x fused" in table
    assert "training, batch 2\n" in table


def test_bytes_moved_are_those_of_the_arrays(on_the_cpu):
    p = on_the_cpu.Problem(on_the_cpu.Device("cpu"), 8, 150)
    assert p.bytes == 2 * 8 * 150 * 12 + 8 * 23 * 15 * 4 + 150 * (4 * 12 + 1)


def test_nothing_is_timed_where_a_form_is_wrong(on_the_cpu, monkeypatch):
    right = on_the_cpu.torchs

    def wrong(p):
        return right(p) | {"torch factored": lambda: 1.001 * right(p)["torch factored"]()}

    monkeypatch.setattr(on_the_cpu, "torchs", wrong)
    with pytest.raises(SystemExit, match=r"torch factored is off by .* m: nothing was timed"):
        on_the_cpu.kernels(on_the_cpu.Device("cpu"), options(on_the_cpu))


def test_what_does_not_fit_is_left_out(gpu, capsys):
    def too_large():
        raise torch.OutOfMemoryError

    device = gpu.Device("cpu")
    monkey = SimpleNamespace(empty_cache=lambda: None)
    device.torch = SimpleNamespace(OutOfMemoryError=torch.OutOfMemoryError, cuda=monkey)
    forms = {"fused": lambda: None, "torch per bone": too_large}
    times = device.in_turn(forms, 0.01)
    assert times["torch per bone"] is None
    assert times["fused"]["samples"] > 0
    gpu.show({"kernels": {"batches": [{"batch": 1, "floor_ms": 1.0, "forms": times}]}})
    assert "torch per bone   out of memory" in capsys.readouterr().out


def test_engines_of_a_bundle_are_measured_on_the_cpu(gpu, open_bundle, capsys):
    given = options(gpu, "--part", "pipeline")
    report = gpu.measure(gpu.Device("cpu"), given)
    stages = report["pipeline"]["backends"]["onnxruntime"]["stages"]
    assert stages.keys() == {stage.name for stage in open_bundle.manifest.stages}
    assert all(np.isfinite(list(row["enqueued"].values())).all() for row in stages.values())
    gpu.show(report)
    assert "pipeline, onnxruntime: overlap" in capsys.readouterr().out
