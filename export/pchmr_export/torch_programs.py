"""Stages as torch.export programs beside their ONNX graphs, for the backends torch and torch-cuda.

bundle = add_programs(Bundle.load("open"), open_modules(), Path("open-torch"))
list(build_engines(bundle, "torch", "fp32"))        # AOTInductor, on the device: minutes
bundle.engine("lifter", "torch")

A program and what is compiled from it can run code: such a bundle is loaded with trust=True.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

import pchmr_training
from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.engine import TensorSpec
from pchmr_engines.manifest import Graph, Stage
from pchmr_training.open_default.networks import load_network

from .blazepose_module import detector_module, landmark_module

WEIGHTS = Path(pchmr_training.__file__).parent / "data"
EXAMPLE_ROWS = 2  # a batch of one would be taken for a constant


def _own_network(name: str) -> nn.Module:
    return load_network(name, WEIGHTS / f"{name}.safetensors")[0]


OPEN_MODULES: Mapping[str, Callable[[], nn.Module]] = {
    "detector": detector_module,
    "landmarks": partial(landmark_module, heatmaps=True),
    "generator": partial(_own_network, "generator"),
    "lifter": partial(_own_network, "lifter"),
}
"""Stage of the bundle `open` -> what makes its network."""


def open_modules() -> dict[str, nn.Module]:
    """The networks of the bundle `open`, by stage."""
    return {name: make() for name, make in OPEN_MODULES.items()}


def write_program(module: nn.Module, inputs: Sequence[TensorSpec], path: Path) -> None:
    """The program of a module that takes `inputs` in their order, with a free batch."""
    examples = tuple(
        torch.zeros(spec.sized(EXAMPLE_ROWS), dtype=getattr(torch, spec.dtype)) for spec in inputs
    )
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} if spec.batched else None for spec in inputs)
    with torch.no_grad():
        program = torch.export.export(module.eval(), examples, dynamic_shapes=shapes)
    torch.export.save(program, path)


def add_programs(bundle: Bundle, modules: Mapping[str, nn.Module], target: Path) -> Bundle:
    """A copy of a bundle in which the stages of `modules` also have their program, trusted.

    Each module gives its stage's outputs in their order. Raises: BundleError.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files: dict[str, bytes | Path] = {
            ref.file: bundle.root / ref.file for ref in bundle.manifest.files()
        }

        def with_program(stage: Stage) -> Stage:
            if stage.name not in modules:
                return stage
            name = f"{stage.name}.fp32.pt2"
            write_program(modules[stage.name], stage.inputs, Path(scratch) / name)
            files[f"stages/{name}"] = Path(scratch) / name
            notes = (f"torch.export of torch {torch.__version__}",)
            parity = stage.graph("fp32").parity
            program = Graph("fp32", f"stages/{name}", parity=parity, notes=notes)
            return replace(stage, graphs=(*stage.graphs, program))

        stages = tuple(map(with_program, bundle.manifest.stages))
        manifest = replace(bundle.manifest, stages=stages)
        return replace(write_bundle(target, manifest, files), trust=True)
