"""The people in a photo: a picture with their meshes, and an OBJ file any 3D program opens.

python examples/photo.py                                    # a photo of an astronaut
python examples/photo.py photo.jpg people.png people.obj
"""

import sys
from pathlib import Path

import numpy as np

from pchmr import Pipeline
from pchmr.assets import fetch
from pchmr.media import read_photo, write_photo
from pchmr.overlay import Renderer
from pchmr_engines.errors import PchmrError


def main(photo: str = "", picture: str = "people.png", obj: str = "people.obj") -> None:
    image, _ = read_photo(Path(photo or fetch("astronaut")))
    pipe = Pipeline.load("open", topology="parallel", max_people=4)
    people = pipe(image)
    if not people:
        sys.exit("nobody found")
    meshes = np.stack([person.vertices for person in people])
    drawn = Renderer(pipe.body.faces).render(image, meshes, people[0].camera)
    write_photo(Path(picture), drawn)
    with open(obj, "w", encoding="utf-8") as file:
        first = 1  # OBJ counts vertices from 1, over all objects
        for person in people:
            file.write(f"o person{person.track_id}\n")
            for x, y, z in person.vertices:  # OBJ: y up, z towards the viewer
                file.write(f"v {x:.4f} {-y:.4f} {-z:.4f}\n")
            for a, b, c in pipe.body.faces + first:
                file.write(f"f {a} {b} {c}\n")
            first += len(person.vertices)
    print(f"{picture}, {obj}: {len(people)} of at most 4 people")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except PchmrError as error:
        sys.exit(str(error))
