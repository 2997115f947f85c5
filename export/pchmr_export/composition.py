"""The whole bundle, run by the SDK's pipeline on the demo video, against the PyTorch composition.

gates = composition_gates(recipe, body, networks, bundle)       # mm per vertex, a gate a topology
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pchmr.assets import fetch
from pchmr.people import Person
from pchmr.pipeline import Pipeline
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import PchmrError
from pchmr_engines.verify import Gate

from .examples import video_frames
from .recipe import Recipe
from .recipe_body import RecipeBody
from .stage_forms import LoadedNetwork
from .torch_composition import Clip, run_torch

FIRST, FRAMES = 30, 6  # of the demo video: a woman walks through the picture
INTERVAL_NS = 20_000_000  # VideoPose3D's 50 frames a second
TOLERANCE_MM, TOLERANCE_MM_A_METRE = 1.0, 0.2  # seeded weights put people 25 m away, and spend half


def composition_gates(
    recipe: Recipe,
    body: RecipeBody,
    networks: Mapping[str, LoadedNetwork],
    bundle: Bundle,
    backends: Sequence[str],
) -> tuple[Gate, ...]:
    """Every topology of the recipe, whether passed or not; mesh-only where it stands alone, for
    with others it is their mesh before calibration.

    A template is held against PyTorch's where the runtime has put it.

    Raises: PchmrError where the pipeline loses the person of the demo video.
    """
    images = demo_frames()
    gates = []
    for topology in recipe.topologies:
        if topology == "mesh-only" and {"serial", "parallel"} & set(recipe.topologies):
            continue
        clip, expected = None, {}
        for backend in backends:
            people = run_pipeline(bundle, topology, backend, images)
            boxes = [person.bbox for person in people]
            if clip is None or clip.boxes != boxes or topology == "template":
                # Boxes differ by a backend's rounding, and whole pixels by more.
                clip = Clip(images, boxes, people)
                expected = run_torch(recipe, body, networks, topology, clip)
            for name, right in expected.items():
                found = np.stack([getattr(person, name) for person in people])
                label = f"{topology} {name}"
                for what, unit, value, allowed in composed_differences(found, right):
                    measure = unit, value, value, allowed
                    gates.append(Gate("composition", f"{label}{what}", backend, "fp32", *measure))
    return tuple(gates)


def composed_differences(
    found: NDArray[Any], right: NDArray[Any]
) -> tuple[tuple[str, str, float, float], ...]:
    """(what, unit, greatest value, allowed) of points (T, V, 3), metres: about their own middle,
    and where that lies, which a weak perspective knows to a share of its distance."""
    places = found.mean(1), right.mean(1)
    about = found - places[0][:, None] - (right - places[1][:, None])
    apart = np.linalg.norm(places[0] - places[1], axis=-1) / np.linalg.norm(places[1], axis=-1)
    return (
        ("", "mm", 1000 * float(np.linalg.norm(about, axis=-1).max()), TOLERANCE_MM),
        (", place", "mm a metre", 1000 * float(apart.max()), TOLERANCE_MM_A_METRE),
    )


def demo_frames(count: int = FRAMES) -> list[NDArray[np.uint8]]:
    """Consecutive frames of the demo video. Raises: AssetError when it cannot be fetched."""
    return video_frames(fetch("demo_video"), FIRST, count)


def run_pipeline(
    bundle: Bundle, topology: str, backend: str, images: Sequence[NDArray[np.uint8]]
) -> list[Person]:
    """The one person of each image, as the runtime computes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # untrained weights, approximate conversions
        with Pipeline(bundle, topology, backend=backend) as pipeline:
            found = [
                person
                for number, image in enumerate(images)
                for person in pipeline(image, number * INTERVAL_NS)
            ]
            found += [person for people in pipeline.flush() for person in people]
    if [person.frame for person in found] != list(range(len(images))):
        raise PchmrError(
            f"the pipeline of {bundle.manifest.name!r} finds people in frames "
            f"{[person.frame for person in found]} of {len(images)} of the demo video; expected "
            "one in each: report this"
        )
    return found
