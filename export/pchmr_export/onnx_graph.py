"""A torch module as an ONNX file that every backend reads, and its tensors by their own names."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from pchmr_engines.engine import BATCH, TensorSpec
from pchmr_engines.errors import InputError

from .fold_norms import fold_norms

OPSET = 18
CONTROL_FLOW = {"If", "Loop", "Scan"}
LARGEST_FILE = 2**31 - 2**20  # bytes of weights; protobuf ends at 2 GiB
SMALL_TENSOR = 1024  # bytes; shapes and axes stay in the graph, where shape inference needs them


@dataclass(frozen=True)
class StageFile:
    """A stage's graph on disk.

    external: the file of its weights, in the same folder, where they exceed 2 GB.
    """

    path: Path
    external: tuple[Path, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def export_graph(
    module: nn.Module,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[str],
    path: Path,
    rename: Callable[[str], str] = str,
    metadata: Mapping[str, str] | None = None,
) -> StageFile:
    """Write a module, in evaluation mode, as ONNX with a free batch.

    module: takes the inputs in their order and gives the outputs, one tensor or a tuple. rename:
    module key -> name of the tensor in the graph. metadata: kept in the file. Norms are folded into
    the convolution or matrix product before them; one that follows a sum or an activation stays.

    Raises: InputError, one line, for a module that torch cannot trace, whose graph branches, or
    whose outputs do not have the batch as their first and only free dimension.
    """
    name = path.name.split(".")[0]
    graph_module = _PlainNames(module.eval(), len(inputs))
    program = _convert(graph_module, inputs, outputs, name)
    _name_constants(program.model.graph, [rename(key) for key in graph_module.keys])
    model = program.model
    _narrow(model.graph)
    program.optimize()
    model = program.model
    _check_operators(model, name)
    _clean(model, name)
    model.metadata_props.update(metadata or {})
    specs = tuple(_output_spec(value, name) for value in model.graph.outputs)
    return StageFile(path, save_graph(model, path), tuple(inputs), specs)


class _PlainNames(nn.Module):
    """A module with its tensors as `t0`, `t1`, ...: official keys need not be names in Python."""

    def __init__(self, module: nn.Module, inputs: int) -> None:
        super().__init__()
        self._module, self._inputs = (module,), inputs  # in a tuple, so not a submodule
        tensors = dict([*module.named_parameters(), *module.named_buffers()])
        self.keys = list(tensors)
        for index, tensor in enumerate(tensors.values()):
            self.register_buffer(f"t{index}", tensor.detach())

    def forward(self, *inputs: Tensor) -> Any:
        tensors = {key: getattr(self, f"t{index}") for index, key in enumerate(self.keys)}
        return torch.func.functional_call(self._module[0], tensors, inputs)


def _convert(
    module: nn.Module, inputs: Sequence[TensorSpec], outputs: Sequence[str], name: str
) -> torch.onnx.ONNXProgram:
    examples = tuple(
        torch.zeros(spec.sized(2), dtype=getattr(torch, spec.dtype)) for spec in inputs
    )
    batch = torch.export.Dim(BATCH)
    free = tuple({0: batch} if spec.batched else {} for spec in inputs)
    with _quiet(), torch.no_grad():
        try:
            traced = torch.export.export(module, examples, dynamic_shapes=(free,), strict=False)
            fold_norms(traced)
            program = torch.onnx.export(
                traced,
                (),
                input_names=[spec.name for spec in inputs],
                output_names=list(outputs),
                opset_version=OPSET,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # torch raises whatever its tracer meets in the module
            reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
            raise InputError(
                f"{name} cannot be exported ({reason.strip()[:200]}): write it without branches on "
                "values, and with x.shape[0] for the batch instead of len(x)"
            ) from error
    assert program is not None
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on operators that nobody uses."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _name_constants(graph: ir.Graph, names: Sequence[str]) -> None:
    """Give weights their names, and what is computed from one weight alone that name and why."""
    for value in list(graph.initializers.values()):
        if found := re.fullmatch(r"t(\d+)", value.name or ""):
            value.name = names[int(found[1])]
    constants = set(graph.initializers.values())
    for node in graph:
        weights = [value for value in node.inputs if value in constants]
        if len(weights) == len(node.inputs) == len(node.outputs) == 1:
            node.outputs[0].name = f"{weights[0].name}.{node.op_type.lower()}"
            constants.add(node.outputs[0])


def _narrow(graph: ir.Graph) -> None:
    """Float64 becomes float32: TensorRT has none, ONNX Runtime not for every operator."""
    double, single = ir.DataType.DOUBLE, ir.DataType.FLOAT
    for node in graph.all_nodes():
        for attribute in tuple(node.attributes.values()):
            if attribute.name in ("to", "dtype") and attribute.value == double:
                node.attributes[attribute.name] = ir.AttrInt64(attribute.name, int(single))
            elif attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == double:
                constant = ir.tensor(attribute.value.numpy().astype("float32"))
                node.attributes[attribute.name] = ir.AttrTensor(attribute.name, constant)
        for output in node.outputs:
            if output.dtype == double:
                output.dtype = single
    for weight in graph.initializers.values():
        if weight.dtype == double and weight.const_value is not None:
            numbers = weight.const_value.numpy().astype("float32")
            weight.const_value, weight.dtype = ir.tensor(numbers, name=weight.name), single


def _check_operators(model: ir.Model, name: str) -> None:
    branching = sorted({node.op_type for node in model.graph.all_nodes()} & CONTROL_FLOW)
    if branching:
        raise InputError(
            f"{name} has control flow ({', '.join(branching)}), which engines cannot run: use "
            "torch.where, and loops of a fixed number of steps"
        )
    foreign = sorted({node.domain for node in model.graph.all_nodes()} - {""})
    if foreign or model.functions:
        raise InputError(f"{name} needs operators outside of ONNX: {', '.join(foreign)}")


def _clean(model: ir.Model, name: str) -> None:
    """Drop what the exporter noted of this machine and its sources; call the free dimension B."""
    graph = model.graph
    model.doc_string, graph.name = None, name
    model.metadata_props.clear()
    graph.metadata_props.clear()
    ends = (*graph.inputs, *graph.outputs)
    for node in graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in ends:
                value.shape = value.type = None  # shapes of the batch that was traced
    for value in ends:
        assert value.shape is not None
        value.shape = ir.Shape([BATCH, *value.shape[1:]] if _is_free(value, 0) else value.shape)


def _is_free(value: ir.Value, axis: int) -> bool:
    return value.shape is not None and not isinstance(value.shape[axis], int)


def _output_spec(value: ir.Value, name: str) -> TensorSpec:
    assert value.shape is not None
    assert value.dtype is not None
    sizes = [size for size in value.shape[1:] if isinstance(size, int)]
    if not _is_free(value, 0) or len(sizes) < len(value.shape) - 1:
        raise InputError(
            f"{name} gives {value.name!r} as {value.shape}; expected the free batch first and then "
            "fixed sizes: use x.shape[0] for the batch instead of len(x) or a number"
        )
    return TensorSpec(value.name or "", (BATCH, *sizes), value.dtype.numpy().name)


def drop_unused(graph: ir.Graph) -> None:
    """Take out the weights that nothing reads."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def save_graph(model: ir.Model, path: Path) -> tuple[Path, ...]:
    """Write the model; give the file of the weights where they need one of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    constants = (value.const_value for value in model.graph.initializers.values())
    if sum(tensor.nbytes for tensor in constants if tensor is not None) <= LARGEST_FILE:
        ir.save(model, path)
        return ()
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)
    ir.save(model, path, external_data=data.name, size_threshold_bytes=SMALL_TENSOR)
    return (data,)
