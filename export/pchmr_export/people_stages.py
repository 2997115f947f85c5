"""Who is in the frame: BlazePose's detector and landmarks, with which every bundle begins."""

from collections.abc import Callable
from pathlib import Path

from pchmr_engines.manifest import Parity, Role, Stage

from .blazepose import BlazePoseNetwork, build_detector, build_landmark
from .gates import check, measured, run_gates
from .onnx_graph import StageFile
from .stage_build import BuiltStage, finish_stage, graph_path, read_stage
from .work_folder import WorkFolder

_STAGES: dict[str, tuple[Role, Callable[[], BlazePoseNetwork]]] = {
    "detector": ("detector", build_detector),
    "landmarks": ("tracker", lambda: build_landmark("full", heatmaps=True)),
}


def build_people_stage(name: str, work: WorkFolder) -> BuiltStage:
    """A stage of `PEOPLE`. Raises: AssetError: its weights cannot be fetched."""
    role, build = _STAGES[name]

    def make(folder: Path) -> None:
        import onnx

        network = build()
        path = graph_path(folder, name)
        path.parent.mkdir()
        onnx.save(network.model, path)
        parity = {
            output: Parity(gate.unit, gate.scale, 0.0, gate.tolerance)
            for output, gate in network.gates.items()
        }
        # Whoever is sure to be there, in both of its crops, is so with the same probability.
        gates = check(run_gates(name, path, parity, network.parity, must_vary=False))
        stage = Stage(
            name=name,
            role=role,
            graphs=(),
            inputs=network.inputs,
            outputs=network.outputs,
            provenance=network.provenance,
            skeleton=None if role == "detector" else "blazepose33",
            crop=network.crop,
        )
        file = StageFile(path, (), network.inputs, network.outputs)
        finish_stage(folder, stage, file, network.parity, measured(parity, gates), gates)

    return read_stage(work.step({"stage": name, "network": "blazepose"}, make))
