"""A whole serial or parallel computation as one ONNX file of plain operators, for other runtimes.

    export_single_file(whole_of_open("open", "parallel"), Path("parallel.onnx"))

Finding people and cutting crops stay with the host; the file says in its metadata what it takes,
what it gives, and under which licences.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pchmr_engines.backends import engine_from_onnx
from pchmr_engines.errors import InputError
from pchmr_engines.store import folder_beside
from pchmr_engines.verify import Gate

from .body_export import check_exportable
from .composition import TOLERANCE_MM, composed_differences
from .gates import check, installed_backends
from .onnx_graph import StageFile, export_graph
from .room import SPARE, room
from .single_forms import OUTPUTS
from .single_whole import Whole
from .work_folder import tool_versions

ALLOWED = {"mm": TOLERANCE_MM, "mm a metre": 0.02}
"""Of a point about its mesh's middle, and of where that lies. Float32 spends 0.003 mm in the open
default, and half a millimetre behind a PoseNet of seeded weights."""


def export_single_file(whole: Whole, path: Path) -> tuple[StageFile, tuple[Gate, ...]]:
    """Write the file whole, gated on every installed backend, or not at all.

    Above 2 GB its weights lie beside it, in `<name>.data`.

    Raises: InputError for a folder, or for a calibration that cannot become ONNX; GateFailed, one
    line, where a backend is not what PyTorch computes: a file that is there already stays. As
    `room`, where a disk is full.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected the name of a file, as whole.onnx")
    check_exportable(whole.form.composition.calibration, path.name)
    facts = {**whole.facts, "exporter": json.dumps(tool_versions())}
    weights = sum(tensor.nbytes for tensor in whole.form.state_dict().values())
    with room(path.name, SPARE + weights, path), folder_beside(path) as folder:
        file = export_graph(
            whole.form,
            whole.inputs,
            tuple(OUTPUTS),
            folder / path.name,
            lambda key: key.removeprefix("composition."),
            facts,
        )
        gates = check(single_gates(whole, file.path, installed_backends()))
        for made in (*file.external, file.path):  # the graph last: it is of no use without them
            os.replace(made, path.with_name(made.name))
    external = tuple(path.with_name(made.name) for made in file.external)
    return StageFile(path, external, file.inputs, file.outputs), gates


def single_gates(whole: Whole, path: Path, backends: Sequence[str]) -> tuple[Gate, ...]:
    """Each output on each backend against PyTorch, whether passed or not."""
    gates: list[Gate] = []
    for backend in backends:
        found = engine_from_onnx(path, backend, precision="fp32", cache=False).run(whole.rows)
        for name, what, unit, value in _differences(found, whole.expected):
            measure = unit, value, value, ALLOWED[unit]
            gates.append(Gate(whole.facts["topology"], name + what, backend, "fp32", *measure))
    return tuple(gates)


def _differences(
    found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> Iterator[tuple[str, str, str, float]]:
    """(output, what of it, unit, greatest value)."""
    for name, right in expected.items():
        points = (x.reshape(len(x), -1, 3).astype(np.float64) for x in (found[name], right))
        about, place = composed_differences(*points)
        if name != "translation":  # which has no shape
            yield name, *about[:3]
        yield name, *place[:3]
