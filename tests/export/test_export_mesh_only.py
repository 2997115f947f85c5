"""A recipe of a mesh generator alone: its composition is gated like any other's."""

from pathlib import Path

from export_cases import small_recipe

from pchmr_export.assemble import export_recipe
from pchmr_export.work_folder import WorkFolder


def test_a_generator_alone_is_held_against_pytorch(work: WorkFolder, tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    assert recipe.topologies == ("mesh-only",)
    exported = export_recipe(recipe, tmp_path / "bundle", work, trust=True)
    composed = [gate for gate in exported.gates if gate.stage == "composition"]
    assert {gate.output for gate in composed} >= {"mesh-only vertices", "mesh-only vertices, place"}
    assert {gate.backend for gate in composed} == {"onnxruntime", "openvino"}
    assert all(gate.passed and gate.value > 0 for gate in composed)
