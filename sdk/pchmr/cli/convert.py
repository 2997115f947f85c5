"""`pchmr convert`: results in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pchmr_engines.cli import JsonOption, print_json
from pchmr_engines.errors import InputError

if TYPE_CHECKING:
    from ..exchange.recording import Recording

Option = typer.Option
FITTED = (".bvh", ".npz")


def convert(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="The npz that pchmr run wrote.")
    ],
    out: Annotated[
        Path,
        Option(
            "--out", "-o", metavar="FILE", help="mesh.glb, motion.bvh, smpl.npz or recording.rrd."
        ),
    ],
    person: Annotated[
        int | None,
        Option(metavar="ID", help="Track id; otherwise all (glb, rrd), or who is seen longest."),
    ] = None,
    bundle: Annotated[
        str | None,
        Option(
            metavar="BUNDLE",
            help="For bvh and npz: whose body is fitted, where it is not the very one that made "
            "the results.",
        ),
    ] = None,
    group: Annotated[
        str | None, Option(metavar="NAME", help="Of a file with several runs: serial or parallel.")
    ] = None,
    flat: Annotated[
        bool, Option("--flat", help="For glb: without normals, half as large.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Results as GLB, Rerun, BVH or SMPL parameters.

    GLB and Rerun hold the exact meshes. BVH and SMPL's npz (AMASS layout) hold a body pose fitted
    to them; what the fit leaves over is told in mm.

    \b
    pchmr convert out/walk.npz -o walk.glb             Blender, three.js
    pchmr convert out/walk.npz -o walk.bvh --person 0
    pchmr convert out/walk.npz -o smpl.npz
    """
    from ..exchange.recording import read_recording

    kind = out.suffix.lower()
    if kind not in (".glb", ".rrd", *FITTED):
        raise InputError(f"output {out}; expected a name that ends in .glb, .bvh, .npz or .rrd")
    if flat and kind != ".glb":
        raise InputError(f"--flat is of .glb; the output is {out}: leave it out")
    if bundle and kind not in FITTED:
        raise InputError(f"--bundle is of .bvh and .npz; the output is {out}: leave it out")
    if out.resolve() == results.resolve():
        raise InputError(f"output {out} is the input: name another place with -o")
    recording = read_recording(results, group)
    people = recording.tracks if person is None else {person: recording.track(person)}
    if kind in FITTED:
        figures = _convert_motion(out, recording, person, bundle)
        people = {figures["person"]: recording.track(figures["person"])}
    else:
        _convert_meshes(out, recording, person, flat)
        figures = {}
    if as_json:
        print_json({"written": str(out), "people": list(people), **figures})
        return
    told = ", ".join(f"person {one.id} ({len(one.frame)} frames)" for one in people.values())
    if kind in FITTED:
        left_out = len(recording.tracks) - 1 if person is None else 0
        told += f", the others ({left_out}) left out: --person ID" if left_out else ""
        told += (
            "; {frames} frames at {fps:.5g} a second; the body lies {mean_mm:.1f} mm from the "
            "calibrated vertices in the mean, {max_mm:.1f} mm at most".format(**figures)
        )
    typer.echo(f"wrote {out}: {told}")


def _convert_meshes(out: Path, recording: Recording, person: int | None, flat: bool) -> None:
    if out.suffix.lower() == ".glb":
        from ..exchange.glb import write_glb

        write_glb(out, recording, person, normals=not flat)
    else:
        from ..exchange.rerun import write_rerun

        write_rerun(out, recording, person)


def _convert_motion(
    out: Path, recording: Recording, person: int | None, bundle: str | None
) -> dict[str, Any]:
    """Fit the body and write it; what the fit left over."""
    from ..exchange.amass import write_amass
    from ..exchange.bvh import write_bvh
    from ..exchange.motion import body_of, fit_motion

    motion = fit_motion(recording, body_of(recording, bundle), person)
    if out.suffix.lower() == ".bvh":
        write_bvh(out, motion)
    else:
        write_amass(out, motion, recording)
    return {
        "person": recording.track(person).id,
        "frames": len(motion.transl),
        "fps": motion.fps,
        "mean_mm": motion.mean_mm,
        "max_mm": motion.max_mm,
    }
