"""`pchmr convert`: results in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..exchange.recording import Recording

Option = typer.Option


def convert(
    results: Annotated[Path, typer.Argument(help="The npz that pchmr run wrote.")],
    out: Annotated[
        Path, Option("--out", "-o", help="mesh.glb, motion.bvh, smpl.npz or recording.rrd.")
    ],
    person: Annotated[
        int | None, Option(help="Track id; otherwise all (glb, rrd), or who is seen longest.")
    ] = None,
    bundle: Annotated[
        str | None, Option(help="The bundle that made the results, if they do not name it.")
    ] = None,
    group: Annotated[
        str | None, Option(help="Of a file with several runs: serial or parallel.")
    ] = None,
    flat: Annotated[bool, Option("--flat", help="GLB without normals: half as large.")] = False,
) -> None:
    """Results as GLB, Rerun, BVH or SMPL parameters.

    GLB and Rerun hold the exact meshes. BVH and SMPL's npz (AMASS layout) hold a body pose fitted
    to them; what the fit leaves over is told in mm."""
    from pchmr_engines.errors import InputError

    from ..exchange.recording import read_recording

    kind = out.suffix.lower()
    if kind not in (".glb", ".bvh", ".npz", ".rrd"):
        raise InputError(f"output {out}; expected a name that ends in .glb, .bvh, .npz or .rrd")
    if out.resolve() == results.resolve():
        raise InputError(f"output {out} is the input: name another place with -o")
    recording = read_recording(results, group)
    if kind == ".glb":
        from ..exchange.glb import write_glb

        write_glb(out, recording, person, normals=not flat)
        note = recording.describe() if person is None else f"person {person}"
    elif kind == ".rrd":
        from ..exchange.rerun import write_rerun

        write_rerun(out, recording, person)
        note = recording.describe() if person is None else f"person {person}"
    else:
        note = _convert_motion(out, recording, person, bundle)
    typer.echo(f"wrote {out}: {note}")


def _convert_motion(out: Path, recording: Recording, person: int | None, bundle: str | None) -> str:
    """Fit the body, write BVH or npz, and say what the fit left over."""
    from ..exchange.amass import write_amass
    from ..exchange.bvh import write_bvh
    from ..exchange.motion import body_of, fit_motion

    motion = fit_motion(recording, body_of(recording, bundle), person)
    if out.suffix.lower() == ".bvh":
        write_bvh(out, motion)
    else:
        write_amass(out, motion, recording)
    track = recording.track(person)
    others = f" of {recording.describe()}" if person is None and len(recording.tracks) > 1 else ""
    return (
        f"person {track.id}{others}, {len(motion.transl)} frames at {motion.fps:.5g} a second; "
        f"the body lies {motion.mean_mm:.1f} mm from the calibrated vertices in the mean, "
        f"{motion.max_mm:.1f} mm at most"
    )
