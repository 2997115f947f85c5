"""A bundle's graphs of lower precision run through `Bundle.engine`, and `verify` gates each."""

from dataclasses import replace

import numpy as np
import pytest

from pchmr_engines import engine_from_onnx
from pchmr_engines.backends.openvino import has_bf16
from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.errors import BundleError, EngineError
from pchmr_engines.manifest import Graph
from pchmr_engines.verify import verify_bundle
from pchmr_export.half import write_half
from pchmr_export.quantise import write_int8

LIMITS_MM = {"fp32": 0.1, "fp16": 5.0, "bf16": 40.0, "int8": 100.0}  # loose: budgets are export's


@pytest.fixture(scope="module")
def lowered(open_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The open bundle whose lifter also has fp16, bf16 (the fp32 graph) and int8."""
    folder = tmp_path_factory.mktemp("lowered")
    lifter = open_bundle.stage("lifter")
    plain = lifter.graph()
    data = open_bundle.parity_data("lifter")
    source = open_bundle.root / plain.file
    write_half(source, folder / "fp16.onnx", "fp16")
    rows = {"keypoints": data["inputs/keypoints"]}
    write_int8(source, folder / "int8.onnx", rows, quantiser="onnxruntime")

    def graph(precision: str, file: str) -> Graph:
        gates = {k: replace(g, tolerance=LIMITS_MM[precision]) for k, g in plain.parity.items()}
        return replace(plain, precision=precision, file=file, parity=gates)

    names = {
        "fp16": "stages/lifter.fp16.onnx",
        "bf16": plain.file,
        "int8": "stages/lifter.int8.onnx",
    }
    lifter = replace(lifter, graphs=(plain, *(graph(*pair) for pair in names.items())))
    stages = tuple(lifter if s.name == "lifter" else s for s in open_bundle.manifest.stages)
    files = {ref.file: open_bundle.root / ref.file for ref in open_bundle.manifest.files()}
    files |= {names[p]: folder / f"{p}.onnx" for p in ("fp16", "int8")}
    return write_bundle(folder / "bundle", replace(open_bundle.manifest, stages=stages), files)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_graph_runs_in_its_precision(lowered: Bundle, backend: str, precision: str) -> None:
    keypoints = lowered.parity_data("lifter")["inputs/keypoints"]
    exact = lowered.engine("lifter", backend, 1).run({"keypoints": keypoints})["joints"]
    engine = lowered.engine("lifter", backend, 1, precision)
    assert (engine.backend, engine.precision) == (backend, precision)
    found = engine.run({"keypoints": keypoints})["joints"]
    assert found.dtype == np.float32
    off = 1000 * np.abs(found - exact).max()
    assert off <= LIMITS_MM[precision]
    assert precision == "fp16" or off > 0  # CPU runtimes compute an fp16 graph in float32


def test_bf16_is_the_plain_graph_run_so(lowered: Bundle) -> None:
    with pytest.raises(EngineError, match="onnxruntime cannot lower a graph to bf16"):
        lowered.engine("lifter", "onnxruntime", precision="bf16")
    if not has_bf16():
        pytest.skip("this CPU has no bf16: not run in it")
    engine = lowered.engine("lifter", "openvino", 1, "bf16")
    keypoints = lowered.parity_data("lifter")["inputs/keypoints"]
    exact = lowered.engine("lifter", "openvino", 1).run({"keypoints": keypoints})["joints"]
    found = engine.run({"keypoints": keypoints})["joints"]
    assert 0 < 1000 * np.abs(found - exact).max() <= LIMITS_MM["bf16"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_verify_holds_the_graphs_of_a_precision(lowered: Bundle, precision: str) -> None:
    gates = verify_bundle(lowered, "onnxruntime", 1, precision)
    stages = {gate.stage for gate in gates}
    assert stages == (set(lowered.stages) if precision == "fp32" else {"lifter"})
    assert all(gate.passed and gate.precision == precision for gate in gates)


def test_a_precision_that_no_stage_has_is_named(lowered: Bundle) -> None:
    with pytest.raises(BundleError, match=r"stores no outputs of fp8 .onnx graphs to verify"):
        verify_bundle(lowered, "onnxruntime", precision="fp8")


def test_fp8_is_no_precision_of_openvino(lowered: Bundle) -> None:
    path = lowered.root / lowered.stage("lifter").graph().file
    with pytest.raises(EngineError, match="precision 'fp8'; expected one of"):
        engine_from_onnx(path, "openvino", precision="fp8")
