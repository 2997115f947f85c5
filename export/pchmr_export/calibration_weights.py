"""The calibration weights that ship with this package, trained for the open body.

`data/calibration_<skeleton>.npz` was written by `pchmr train calibration`; the command and what it
gave stand in the file's own `meta`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pchmr.bodies import body_from_arrays
from pchmr_training.calibration_file import TrainedCalibration, read_calibration

DATA = Path(__file__).parent / "data"


def trained_calibration(skeleton: str, body: Mapping[str, np.ndarray]) -> TrainedCalibration | None:
    """Trained weights of the bones of `skeleton` for a body, or None where there are none.

    body: arrays under SMPL's keys, as `build_open_body` gives them. It is known by its triangles
    and its joints at rest: bytes differ from one machine to another.

    Raises: InputError when the body has no regressor for the skeleton.
    """
    path = DATA / f"calibration_{skeleton}.npz"
    if not path.is_file():
        return None
    trained = read_calibration(path)
    loaded = body_from_arrays(body)
    rest_joints = loaded.regressor(skeleton) @ loaded.v_template
    return trained if trained.fits(loaded.faces, rest_joints) else None
