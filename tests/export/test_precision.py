"""Graphs of lower precision: what is inside them, what they cost, and what a slip does to them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from pchmr_engines.backends import engine_from_onnx
from pchmr_engines.backends.openvino import has_bf16
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import InputError
from pchmr_engines.manifest import Provenance, Stage
from pchmr_export import budgets
from pchmr_export.budgets import differences, spent
from pchmr_export.half import depth, last_products, lowered, rounding
from pchmr_export.onnx_graph import export_graph, save_graph
from pchmr_export.precision import LOWER, BudgetExceeded, judges, lower_stage, write_graph

FORMATS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
INPUT = TensorSpec("image", ("B", 16, 16, 3), "uint8")


class Network(nn.Module):
    """Pixels, normalised; three convolutions; joints by soft-argmax, as far as a head goes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = image.float().permute(0, 3, 1, 2) / 255 - 0.5
        x = self.first(x).relu()
        maps = self.head(x + self.second(x).relu()).flatten(2)
        return maps.softmax(-1) @ torch.linspace(0, 1, 256)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("graph") / "network.fp32.onnx"
    network = Network()
    with torch.no_grad():
        network.head.weight *= 20  # peaks that move
    return export_graph(network, (INPUT,), ("joints",), path).path


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)}


def run(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


@pytest.mark.parametrize("precision", FORMATS)
def test_products_are_lowered_and_edges_and_head_are_not(
    precision: str, graph: Path, tmp_path: Path
) -> None:
    path = tmp_path / "low.onnx"
    save_graph(lowered(ir.load(graph), precision), path)
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    kinds |= {
        v.name: v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)
    }
    assert (kinds["image"], kinds["joints"]) == (TensorProto.UINT8, TensorProto.FLOAT)
    low = {"Conv": 3, "Softmax": 0, "Div": 0, "MatMul": 0}
    for operator, count in low.items():
        nodes = [node for node in model.graph.node if node.op_type == operator]
        assert sum(kinds[node.input[0]] == FORMATS[precision] for node in nodes) == count, operator
    assert Counter(node.op_type for node in model.graph.node)["Cast"] == 3  # image, in, out


def test_fp16_rounds_only_where_it_says(
    graph: Path, rows: dict[str, np.ndarray], tmp_path: Path
) -> None:
    exact = run(graph, rows)
    off = {}
    for levels in range(4):
        model = lowered(ir.load(graph), "fp16", last_products(ir.load(graph), levels))
        save_graph(rounding(model), tmp_path / "rounding.onnx")
        off[levels] = np.abs(run(tmp_path / "rounding.onnx", rows) - exact).max()
    assert 1e-5 < off[0] < 1e-2
    assert 0 < off[2] < 1e-2  # the first of three is still low
    assert off[3] < 1e-6
    assert depth(ir.load(graph)) == 3  # the matrix product of the soft-argmax is no layer


@pytest.mark.skipif(not has_bf16(), reason="not tested: this CPU has no bf16")
def test_openvino_keeps_layers_of_a_bf16_graph_in_float32(
    graph: Path, rows: dict[str, np.ndarray], tmp_path: Path
) -> None:
    exact, off = run(graph, rows), []
    for levels in (0, 2):  # of three
        write_graph(graph, tmp_path / "low.onnx", "bf16", rows, levels)
        engine = engine_from_onnx(tmp_path / "low.onnx", "openvino", 1, "bf16", cache=False)
        off.append(np.abs(engine.run(rows)["joints"] - exact).max())
    assert off[0] > 1.2 * off[1] > 1e-6  # run in bf16 as a whole, both would be alike


def test_a_weight_beyond_fp16_keeps_its_product(graph: Path) -> None:
    model = ir.load(graph)
    weight = model.graph.initializers["second.weight"]
    weight.const_value = ir.tensor(np.full(weight.shape.numpy(), 1e6, np.float32))
    low = lowered(model, "fp16")
    names = set(low.graph.initializers)
    assert "second.weight" in names
    assert {"first.weight.float16", "head.weight.float16"} <= names


@pytest.mark.parametrize("quantiser", ["nncf", "onnxruntime"])
def test_int8_is_signed_and_leaves_what_is_kept(
    quantiser: str, graph: Path, rows: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "low.onnx"
    assert write_graph(graph, path, "int8", rows, 1, quantiser) == 1  # the head
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    steps = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    zeros = [numpy_helper.to_array(constants[node.input[2]]) for node in steps]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    makers = {node.output[0]: node.op_type for node in model.graph.node}
    weights = {
        node.name: makers.get(node.input[1]) for node in model.graph.node if node.op_type == "Conv"
    }
    assert Counter(weights.values()) == {"DequantizeLinear": 2, None: 1}
    assert np.abs(run(path, rows) - run(graph, rows)).max() < 0.05


def test_fp8_rounds_weights_and_activations(
    graph: Path, rows: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "low.onnx"
    write_graph(graph, path, "fp8", rows)
    onnx.checker.check_model(str(path), full_check=True)
    stored = [
        t for t in onnx.load(path).graph.initializer if t.data_type == TensorProto.FLOAT8E4M3FN
    ]
    assert sum(len(tensor.dims) == 4 for tensor in stored) == 3
    (engine,) = judges(path, "fp8", 1, tmp_path).values()
    assert 1e-4 < np.abs(engine.run(rows)["joints"] - run(graph, rows)).max() < 0.1


@pytest.mark.parametrize("precision", LOWER)
def test_tensorrt_for_rtx_builds_it(
    precision: str, graph: Path, rows: dict[str, np.ndarray], tmp_path: Path
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="not tested: TensorRT for RTX")
    write_graph(graph, tmp_path / "low.onnx", precision, rows)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, trt.Logger()).parse_from_file(str(tmp_path / "low.onnx"))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("image", *[(batch, 16, 16, 3) for batch in (1, 1, 2)])
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


def test_an_unknown_precision_is_refused(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'fp4': expected one of fp16, bf16, int8, fp8"):
        write_graph(graph, tmp_path / "low.onnx", "fp4", {})


# Budgets


def stage_of(outputs: str, **settings: str) -> Stage:
    specs = tuple(TensorSpec(name, ("B", 3), "float32") for name in outputs.split())
    return Stage("x", "lifter", (), (INPUT,), specs, Provenance("", ""), settings=settings)


def test_differences_are_in_the_stages_unit() -> None:
    turned = torch.matrix_exp(torch.tensor([[0, -0.1, 0], [0.1, 0, 0], [0, 0, 0.0]])).numpy()
    eye = np.eye(3, dtype=np.float32)[None, None]
    off = differences(stage_of("rotmats"), {"rotmats": turned[None, None]}, {"rotmats": eye})
    assert off["rotmats"][0] == "deg"
    np.testing.assert_allclose(off["rotmats"][1], np.rad2deg(0.1), rtol=1e-5)
    joints = np.zeros((1, 2, 3), np.float32)
    moved = joints + np.array([0.003, 0.004, 0], np.float32)
    unit, values = differences(stage_of("joints"), {"joints": moved}, {"joints": joints})["joints"]
    assert unit == "mm"
    np.testing.assert_allclose(values, 5, rtol=1e-5)
    maps = np.zeros((1, 17, 64, 48), np.float32)
    maps[:, :, 20, 10] = 1
    stage = stage_of("heatmaps", decoder="hrnet")
    off = differences(stage, {"heatmaps": np.roll(maps, 1, -1)}, {"heatmaps": maps})
    np.testing.assert_allclose(off["keypoints"][1], 4.0)


def test_of_a_detector_only_the_surest_box_counts() -> None:
    scores = np.full((2, 5, 1), -9.0, np.float32)
    scores[0, 3] = 4  # nobody in the second row
    boxes = np.zeros((2, 5, 12), np.float32)
    worse = boxes + 50
    worse[0, 3] = 0.25
    off = differences(
        stage_of("boxes scores"),
        {"boxes": worse, "scores": scores},
        {"boxes": boxes, "scores": scores},
    )
    assert off["box"][1].shape == (1, 12)
    assert off["box"][1].max() == 0.25


def test_nan_is_over_every_budget() -> None:
    (figure,) = spent("x", "y", "fp16", {"joints": ("mm", np.array([np.nan]))})
    assert not figure.passed
    assert figure.share == np.inf


# The lifter of `open`, whose weights are real


@pytest.fixture(scope="module")
def lifter_rows(open_bundle: Bundle) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    keypoints = open_bundle.parity_data("lifter")["inputs/keypoints"]
    return {"keypoints": keypoints}, {"keypoints": keypoints}


def test_a_stage_holds_its_budget_in_fp16(
    open_bundle: Bundle, lifter_rows: tuple[dict, dict], tmp_path: Path
) -> None:
    stage = open_bundle.stage("lifter")
    one = lower_stage(open_bundle, stage, "fp16", lifter_rows, tmp_path)
    assert (one.level, one.kept) == (0, 0)
    assert all(0 < figure.mean <= figure.budget for figure in one.spent)


def test_a_stage_keeps_layers_and_then_itself_in_float32(
    open_bundle: Bundle,
    lifter_rows: tuple[dict, dict],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = open_bundle.stage("lifter")
    off = {
        level: max(
            f.mean
            for f in lower_stage(open_bundle, stage, "fp16", lifter_rows, tmp_path, (level,)).spent
        )
        for level in (0, 2)
    }
    assert off[2] < off[0]
    monkeypatch.setitem(budgets.BUDGETS, "mm", 10 * (off[0] + off[2]) / 2)
    assert lower_stage(open_bundle, stage, "fp16", lifter_rows, tmp_path).level == 2
    monkeypatch.setitem(budgets.BUDGETS, "mm", 1e-6)
    line = r"stage 'lifter' in fp16 on onnxruntime: \w+ is .* last 2 layers .* allowed are 1e-07"
    with pytest.raises(BudgetExceeded, match=line):
        lower_stage(open_bundle, stage, "fp16", lifter_rows, tmp_path)


Edit = Callable[[np.ndarray], np.ndarray]


def largest_step(model: onnx.ModelProto, edit: Edit, ending: str) -> None:
    tensors = [t for t in model.graph.initializer if t.name.endswith(ending) and t.dims]
    tensor = max(tensors, key=lambda t: numpy_helper.to_array(t).size)
    value = edit(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))


@pytest.mark.parametrize(
    "edit",
    [lambda scale: scale * 2, np.zeros_like, lambda scale: np.roll(scale, 7)],
    ids=["twice the step", "a dropped layer", "steps of other channels"],
)
def test_a_slip_in_a_quantised_graph_fails_its_budget(
    edit: Edit, open_bundle: Bundle, lifter_rows: tuple[dict, dict], tmp_path: Path
) -> None:
    stage, path = open_bundle.stage("lifter"), tmp_path / "lifter.int8.onnx"
    source = open_bundle.root / stage.graph("fp32").file
    write_graph(source, path, "int8", lifter_rows[0], 1, "onnxruntime")
    right = run_all(source, lifter_rows[1])
    before = spent(
        "lifter", "onnxruntime", "int8", differences(stage, run_all(path, lifter_rows[1]), right)
    )
    model = onnx.load(path)
    largest_step(model, edit, "_scale")
    onnx.save(model, path)
    after = spent(
        "lifter", "onnxruntime", "int8", differences(stage, run_all(path, lifter_rows[1]), right)
    )
    assert not any(figure.passed for figure in after)
    assert all(b.mean > 2 * a.mean for a, b in zip(before, after, strict=True))


def run_all(path: Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return engine_from_onnx(path, "onnxruntime", 1, cache=False).run(feed)
