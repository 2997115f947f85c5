"""Both knees' angles over a video, as CSV: 180 degrees is a straight leg.

python examples/knee_angles.py                       # the demo video
python examples/knee_angles.py walk.mp4 > knees.csv
"""

import sys

import numpy as np

from pchmr import Person, Pipeline
from pchmr.assets import fetch
from pchmr.media import open_source
from pchmr_engines.errors import PchmrError
from pchmr_kernels.skeletons import get_skeleton


def knee_angle_deg(person: Person, side: str) -> float:
    skeleton = get_skeleton(person.skeleton)
    hip, knee, ankle = (
        person.joints[skeleton.index(f"{side}_{joint}")] for joint in ("hip", "knee", "ankle")
    )
    thigh, shin = hip - knee, ankle - knee
    cos = thigh @ shin / (np.linalg.norm(thigh) * np.linalg.norm(shin))
    return float(np.degrees(np.arccos(np.clip(cos, -1, 1))))


def main(video: str = "") -> None:
    pipe = Pipeline.load("open", topology="parallel", smooth=True)
    print("seconds,person,left_deg,right_deg")
    with open_source(video or fetch("demo_video")) as source:
        for frame in source:
            for person in pipe(frame.image, frame.t_ns):
                left, right = (knee_angle_deg(person, side) for side in ("left", "right"))
                print(f"{frame.t_ns / 1e9:.3f},{person.track_id},{left:.1f},{right:.1f}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except PchmrError as error:
        sys.exit(str(error))
