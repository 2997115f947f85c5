"""The people in a photo as one OBJ file, which any 3D program opens.

python examples/photo_to_obj.py photo.jpg people.obj
"""

import sys
from pathlib import Path

from pchmr import Pipeline
from pchmr.media import read_photo


def main(photo: str, obj: str) -> None:
    image, _ = read_photo(Path(photo))
    pipe = Pipeline.load("open", topology="parallel", max_people=4)
    with open(obj, "w", encoding="utf-8") as file:
        first = 1  # OBJ counts vertices from 1, over all objects
        for person in pipe(image):
            file.write(f"o person{person.track_id}\n")
            for x, y, z in person.vertices:  # OBJ: y up, z towards the viewer
                file.write(f"v {x:.4f} {-y:.4f} {-z:.4f}\n")
            for a, b, c in pipe.body.faces + first:
                file.write(f"f {a} {b} {c}\n")
            first += len(person.vertices)


if __name__ == "__main__":
    main(*sys.argv[1:])
