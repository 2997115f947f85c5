"""The verb `pchmr build`."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli import BundleArgument, JsonOption, TrustOption, print_json, print_table
from .errors import InputError
from .manifest import precision_named
from .progress import progress


def build(
    bundle: BundleArgument,
    backend: Annotated[
        str,
        typer.Option(metavar="NAME", help="openvino, tensorrt, tensorrt-rtx, torch, torch-cuda."),
    ],
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="fp32, fp16, bf16, int8 or fp8.")
    ] = "fp32",
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this stage; repeat. All by default."),
    ] = None,
    batch: Annotated[
        str, typer.Option(metavar="N,N", help="Batches to tune for; the largest is the limit.")
    ] = "1",
    force: Annotated[bool, typer.Option("--force", help="Also what is there already.")] = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build the bundle's engines for this device, into the bundle.

    Interrupted, it goes on with what is missing when it is run again.

    \b
    pchmr build bundle/ --backend openvino --precision bf16
    pchmr build bundle/ --backend tensorrt-rtx --precision fp16 --batch 1,4
    """
    from dataclasses import asdict

    from .build import build_engines
    from .bundle import Bundle

    batches, chosen = _batches(batch), precision_named(precision)
    loaded = Bundle.load(bundle, trust)
    with progress() as tell:
        outcomes = list(build_engines(loaded, backend, chosen, stage or (), batches, force, tell))
    if as_json:
        print_json([asdict(outcome) for outcome in outcomes])
        return
    print_table(
        ("stage", "batches", "MB", ""),
        [
            (
                outcome.stage,
                ", ".join(map(str, outcome.batches)),
                f"{outcome.size / 1e6:.1f}",
                "was there" if outcome.seconds is None else f"built in {outcome.seconds:.1f} s",
            )
            for outcome in outcomes
        ],
    )


def _batches(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--batch is {text!r}; expected numbers from 1, such as 1,4")
    return tuple(map(int, parts))
