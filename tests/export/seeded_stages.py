"""Networks with name-seeded weights as stages, and what torch gives for their examples."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pchmr_export.examples import Arrays, example_inputs, framework_outputs, parity_arrays
from pchmr_export.onnx_graph import StageFile
from pchmr_export.stage_export import export_stage
from pchmr_training.networks import NetworkSpec, get_network
from pchmr_training.networks.fixtures import seeded_network


@dataclass(frozen=True)
class SeededStage:
    """data: the parity arrays."""

    spec: NetworkSpec
    file: StageFile
    data: Arrays


def make_stage(name: str, folder: Path) -> SeededStage:
    torch.set_num_threads(1)
    spec = get_network(name)
    network, _ = seeded_network(spec)
    inputs = example_inputs(spec)
    data = parity_arrays(inputs, framework_outputs(network, spec, inputs))
    return SeededStage(spec, export_stage(network, spec, folder / f"{name}.fp32.onnx"), data)


StageOf = Callable[[str], SeededStage]
