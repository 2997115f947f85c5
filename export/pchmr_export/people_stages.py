"""Who is in the frame: BlazePose's detector and landmarks, with which every bundle begins."""

from collections.abc import Callable
from pathlib import Path

from pchmr_engines.manifest import Role

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
        # Whoever is sure to be there, in both of its crops, is so with the same probability.
        gates = check(run_gates(name, path, network.gates, network.parity, must_vary=False))
        stage = network.stage(name, role)
        file = StageFile(path, (), network.inputs, network.outputs)
        finish_stage(folder, stage, file, network.parity, measured(network.gates, gates), gates)

    return read_stage(work.step({"stage": name, "network": "blazepose"}, make))
