"""The verbs `pchmr verify` and `pchmr inspect`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .engine import TensorSpec
    from .manifest import Graph

BundleArgument = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="open, open-plus, or a bundle's folder or zip.")
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Allow stages in formats that can run code.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]


def verify(
    bundle: BundleArgument,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="auto, onnxruntime, openvino, ...")
    ] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of the stages that have it; each one's first by default."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads; all by default.")
    ] = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Repeat the bundle's accuracy gates on this machine; exit code 1 when one fails.

    \b
    pchmr verify bundle/
    pchmr verify bundle/ --backend openvino --precision bf16 --json
    """
    from .backends import AUTO
    from .bundle import Bundle
    from .manifest import precision_named
    from .verify import verify_bundle

    if precision is not None:
        precision_named(precision)
    gates = verify_bundle(Bundle.load(bundle, trust), backend, threads, precision)
    if as_json:
        print_json(
            [
                asdict(gate)
                | {"passed": gate.passed, "value": gate.value if isfinite(gate.value) else None}
                for gate in gates
            ]
        )
    else:
        print_table(
            ("stage", "output", "runs on", "difference", "allowed", ""),
            [
                (
                    gate.stage,
                    gate.output,
                    f"{gate.backend} {gate.precision}",
                    f"{gate.value:.3g}",
                    f"{gate.tolerance:.3g} {gate.unit}",
                    "pass" if gate.passed else "FAIL",
                )
                for gate in gates
            ],
        )
    if rounded := {g.backend for g in gates if g.precision == "fp16" and g.backend in AUTO}:
        names = " and ".join(sorted(rounded))
        typer.echo(f"{names} computes fp16 in float32 on a CPU: its rounding is not seen", err=True)
    if not all(gate.passed for gate in gates):
        raise typer.Exit(1)


def inspect(
    bundle: BundleArgument, trust: TrustOption = False, as_json: JsonOption = False
) -> None:
    """Show a bundle: stages, shapes, multiply-adds, sizes, licences.

    Also how far each graph was off the framework when it was exported (of its outputs the one
    nearest to what its gate allows) or how it was judged, and the engines built from it."""
    from .bundle import Bundle
    from .device_engines import listings

    loaded = Bundle.load(bundle, trust)
    manifest = loaded.manifest
    built = [found for stage in manifest.stages for found in listings(loaded.root, stage.name)]
    sizes = {ref.file: (loaded.root / ref.file).stat().st_size for ref in manifest.files()}
    if as_json:
        engines = [asdict(engine) for engine in built]
        print_json({**asdict(manifest), "path": str(loaded.root), "bytes": sizes, "built": engines})
        return
    typer.echo(f"{manifest.name}: {', '.join(manifest.topologies)}  ({loaded.root})")
    licences: dict[str, list[str]] = {}
    for stage in manifest.stages:
        licences.setdefault(stage.provenance.licence, []).append(stage.name)
    print_table(
        ("stage", "role", "precision", "accuracy at export", "M MACs", "MB"),
        [
            (
                *(("", "") if place else (stage.name, stage.role)),
                *(graph.precision, _accuracy(graph)),
                "" if place or stage.macs is None else f"{stage.macs / 1e6:.1f}",
                f"{sum(sizes[name] for name in graph.files) / 1e6:.2f}",
            )
            for stage in manifest.stages
            for place, graph in enumerate(stage.graphs)
        ],
    )
    print_table(
        ("", "takes", "gives"),
        [
            (
                stage.name,
                *("\n".join(map(_tensor, specs)) for specs in (stage.inputs, stage.outputs)),
            )
            for stage in manifest.stages
        ],
    )
    if manifest.body:
        typer.echo(f"body: {manifest.body.file}, {sizes[manifest.body.file] / 1e6:.2f} MB")
        licences.setdefault(manifest.body.provenance.licence, []).append("body")
    for pair in manifest.calibrations:
        trained = "trained" if pair.settings.get("trained") else "untrained"
        typer.echo(f"calibrates to: {pair.skeleton}, {trained} weights")
    for target in dict.fromkeys(str(engine.target) for engine in built):
        stages = ", ".join(engine.stage for engine in built if str(engine.target) == target)
        typer.echo(f"engines of {target}: {stages}")
    for licence, names in licences.items():
        typer.echo(f"licence of {', '.join(names)}: {licence}")


def _tensor(spec: TensorSpec) -> str:
    """Name and shape, and the type where it is not the usual one."""
    return str(spec).removesuffix(" float32")


def _accuracy(graph: Graph) -> str:
    """The output that is nearest to what its gate allows, and how far it is off; of a lower
    precision, whose gates only say that nothing changed, how it was judged."""
    if graph.precision != "fp32" and graph.notes:
        return "; ".join(graph.notes)
    if not graph.parity:
        return ""
    name, gate = max(graph.parity.items(), key=lambda item: item[1].value / item[1].tolerance)
    return f"{name} {gate.value:.2g} {gate.unit}".rstrip()


def print_json(value: object) -> None:
    """A value on stdout, as JSON."""
    typer.echo(json.dumps(value, indent=2))


def print_table(columns: tuple[str, ...], rows: Sequence[Sequence[str]]) -> None:
    """Rows on stdout, under their columns' names."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # a narrow terminal costs lines, not text
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)
