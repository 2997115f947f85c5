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

from pchmr_engines.errors import EngineError
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
def gpu_check(monkeypatch):
    """benchmarks/gpu_check.py as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_check

    return gpu_check


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
        f"{part}: not tested: no GPU" for part in gpu.PARTS
    ]
    assert not list(tmp_path.iterdir())


def test_an_unknown_part_is_named(gpu_check, capsys):
    assert gpu_check.main(["kernel"]) == 2
    assert "unknown part kernel; expected kernels, pipeline, " in capsys.readouterr().out


def test_files_whose_imports_are_not_here_are_reported_and_left_out(
    gpu_check, monkeypatch, capsys, tmp_path
):
    def found(part):
        return gpu_check.gpu_tests(gpu_check.Clock(part))

    files = found("kernels") + found("training") + found("pipeline")
    assert "tests/kernels/test_cuda_gpu.py" in files
    assert "tests/training/test_fused_blend.py" in files
    assert "tests/sdk/test_cuda_gpu_frames.py" in files
    assert "not tested" not in capsys.readouterr().out
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_one.py").write_text("import nowhere.at\n@pytest.mark.gpu\ndef f(): 0")
    (tmp_path / "tests/test_two.py").write_text("import elsewhere\n")
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setitem(gpu_check.TESTS, "kernels", ("tests",))
    assert found("kernels") == []
    said = capsys.readouterr().out
    assert said == "kernels: not tested: test_one.py, which needs nowhere\n"
    (tmp_path / "tests/test_one.py").write_text("@pytest.mark.gpu\ndef f(): 0")
    (tmp_path / "tests/conftest.py").write_text("import gone\n")
    assert found("kernels") == []
    assert "test_one.py, which needs gone" in capsys.readouterr().out


def test_what_fails_is_told_and_the_next_step_begins(gpu_check, monkeypatch, capsys, tmp_path):
    """A part's steps, a process each: one that fails, one that hangs, one that is well."""
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_check, "LEAST", 0)
    monkeypatch.setattr(gpu_check, "missing", lambda: None)
    monkeypatch.setattr(gpu_check, "build_native", lambda clock: None)

    def steps(clock):
        clock.expect(clock.run(sys.executable, "-c", "raise SystemExit(3)"))
        clock.expect(clock.run(sys.executable, "-c", "import time; time.sleep(60)", share=0.002))
        clock.expect(clock.run(sys.executable, "-c", "open('made', 'w')"))

    monkeypatch.setitem(gpu_check.PARTS, "kernels", steps)
    monkeypatch.setitem(gpu_check.PARTS, "training", lambda clock: None)
    assert gpu_check.main(["kernels", "training"]) == 1
    said = capsys.readouterr().out
    assert "kernels: failed: stopped after 1 s" in said
    assert (tmp_path / "made").exists()
    assert "training: done" in said
    assert said.endswith("failed: kernels\n")
    clock = gpu_check.Clock("kernels")
    clock._begin -= gpu_check.SECONDS
    assert clock.run("never") == 0
    assert "not tested: no time was left for  never" in capsys.readouterr().out


def test_the_toolkit_is_found_behind_a_script(gpu_check, monkeypatch, tmp_path):
    """Torch takes the folder of the nvcc on the path, where there may be no header."""
    (tmp_path / "cuda/bin").mkdir(parents=True)
    (tmp_path / "cuda/include").mkdir()
    (tmp_path / "cuda/include/cuda.h").touch()
    (tmp_path / "cuda/bin/nvcc").touch()
    (tmp_path / "nvcc").symlink_to(tmp_path / "cuda/bin/nvcc")
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: str(tmp_path / "nvcc"))
    assert gpu_check.cuda_home() == tmp_path / "cuda"
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert gpu_check.environment()["CUDA_HOME"] == str(tmp_path / "cuda")


def last(reports):
    (*_, report) = reports
    return report


def test_kernels_and_training_are_measured_to_the_end(on_the_cpu, capsys):
    gpu = on_the_cpu
    given = options(gpu, "--part", "kernels", "training")
    report = last(gpu.measure(gpu.Device("cpu"), given))
    rows = report["kernels"]["batches"]
    assert report["kernels"]["wrong"] == {}
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


def test_batches_for_which_no_time_is_left_are_said(on_the_cpu, capsys):
    gpu = on_the_cpu
    report = last(
        gpu.measure(gpu.Device("cpu"), options(gpu, "--part", "training", "--budget", "0"))
    )
    gpu.show(report)
    assert "training: not tested: no time was left for batches from 2" in capsys.readouterr().out


def test_bytes_moved_are_those_of_the_arrays(on_the_cpu):
    p = on_the_cpu.Problem(on_the_cpu.Device("cpu"), 8, 150)
    assert p.bytes == 2 * 8 * 150 * 12 + 8 * 23 * 15 * 4 + 150 * (4 * 12 + 1)


def test_a_form_that_is_wrong_or_fails_is_said_and_the_others_are_timed(
    on_the_cpu, monkeypatch, capsys
):
    gpu, right = on_the_cpu, on_the_cpu.torchs

    def fails():
        raise RuntimeError("no compiler\nmore")

    def wrong(p):
        forms = right(p)
        return forms | {"torch factored": lambda: 1.001 * forms["torch factored"](), "lbs": fails}

    monkeypatch.setattr(gpu, "torchs", wrong)
    report = last(gpu.measure(gpu.Device("cpu"), options(gpu, "--part", "kernels")))
    assert report["kernels"]["batches"][0]["forms"].keys() >= {"fused", "torch per bone"}
    assert not report["kernels"]["batches"][0]["forms"].keys() & {"lbs", "torch factored"}
    gpu.show(report)
    said = capsys.readouterr()
    assert "kernels, torch factored: failed: it is off by " in said.out
    assert "kernels, lbs: failed: RuntimeError: no compiler\n" in said.out
    assert "Traceback" in said.err
    assert list(gpu.failures(report)) == ["kernels, wrong, torch factored", "kernels, wrong, lbs"]


def test_what_does_not_fit_is_left_out(gpu, capsys):
    def too_large():
        raise torch.OutOfMemoryError

    device = gpu.Device("cpu")
    monkey = SimpleNamespace(empty_cache=lambda: None)
    device.torch = SimpleNamespace(OutOfMemoryError=torch.OutOfMemoryError, cuda=monkey)
    forms = {"fused": lambda: None, "torch per bone": too_large}
    times = device.in_turn(forms, 0.01, gpu.Budget(60))
    assert times["torch per bone"] is None
    assert times["fused"]["samples"] > 0
    gpu.show({"kernels": {"batches": [{"batch": 1, "floor_ms": 1.0, "forms": times}]}})
    assert "torch per bone   out of memory" in capsys.readouterr().out


def test_what_lacks_is_not_tested_and_what_another_library_says_is_a_failure(gpu):
    def behind(cause):
        def call():
            raise EngineError("cannot compile") from cause

        return call

    budget = gpu.Budget(60)
    assert budget.tried(behind(None)) == "not tested: cannot compile"
    assert budget.tried(behind(ImportError("x"))) == "not tested: cannot compile"
    assert budget.tried(behind(RuntimeError("cuda.h\n!"))) == "failed: EngineError: cuda.h"
    assert gpu.Budget(0).tried(behind(None)) == "not tested: no time was left"
    report = {"a": {"b": [{"batch": 4, "forms": {"c": "failed: x"}}], "d": "not tested: y"}}
    assert list(gpu.failures(report)) == ["a, b 4, forms, c"]


def test_engines_of_a_bundle_are_measured_on_the_cpu(gpu, open_bundle, capsys):
    given = options(gpu, "--part", "pipeline")
    (report, *_) = [
        {**found}
        for found in gpu.measure(gpu.Device("cpu"), given)
        if "overlap" in found["pipeline"]["backends"].get("onnxruntime", {})
    ]
    stages = report["pipeline"]["backends"]["onnxruntime"]["stages"]
    assert stages.keys() == {stage.name for stage in open_bundle.manifest.stages}
    assert all(np.isfinite(list(row["enqueued"].values())).all() for row in stages.values())
    gpu.show(report)
    assert "pipeline, onnxruntime: overlap" in capsys.readouterr().out
