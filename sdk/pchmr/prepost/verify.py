"""Pre- and postprocessing against the originals: `verify_prepost("prepost_hrnet.npz")`."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pchmr_engines.errors import InputError

from .fixtures import Outputs, PrepostFixture
from .verify_meshes import run_hmr, run_hmr2, run_spin
from .verify_poses import run_cpn, run_hrnet, run_posenet
from .verify_sequences import run_semgcn, run_videopose3d

_RUNS: Mapping[str, Callable[[PrepostFixture], Outputs]] = {
    "cpn": run_cpn,
    "hmr2": run_hmr2,
    "hmr_tf": run_hmr,
    "hrnet": run_hrnet,
    "posenet": run_posenet,
    "semgcn": run_semgcn,
    "spin": run_spin,
    "videopose3d": run_videopose3d,
}


def verify_prepost(path: str | Path) -> dict[str, float]:
    """Output name -> worst error / tolerance of a fixture `prepost_*.npz`; at most 1 is agreement.

    Infinite for an output that we do not compute, or in another shape.

    Raises: InputError for a file that is unreadable, lacks an input, or is of no known network.
    """
    fixture = PrepostFixture.read(Path(path))
    run = _find_run(fixture)
    try:
        return fixture.ratios(run(fixture))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"{fixture.path.name} cannot be run: {error!r}") from error


def _find_run(fixture: PrepostFixture) -> Callable[[PrepostFixture], Outputs]:
    """By the network that the fixture names, else by the beginning of the file's name."""
    file = fixture.path.stem.removeprefix("prepost_")
    for name, run in _RUNS.items():
        if fixture.meta.get("name") == name or file == name or file.startswith(f"{name}_"):
            return run
    raise InputError(
        f"{fixture.path.name} is of no network whose pre- and postprocessing is known: "
        f"{', '.join(_RUNS)}"
    )
