"""Makes `data/parity_blazepose.npz`: real crops and what the original runtime answers to them.

    pip install ai-edge-litert
    python -m pchmr_export.blazepose_parity export/pchmr_export/data/parity_blazepose.npz

`ai-edge-litert` is TensorFlow Lite's own interpreter; its reference kernels are used, which compute
the same on every processor. Nothing else needs it.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pchmr.assets import fetch
from pchmr.blazepose import LANDMARK_SIZE

from .blazepose import DETECTOR_OUTPUTS, LANDMARK_OUTPUTS, detector_view

CROPS = {23: (620, 257, 514), 115: (880, 722, 520)}  # frame: centre x, y and side, pixels


def demo_crops() -> NDArray[np.uint8]:
    """(2, 256, 256, 3) uint8 RGB: a man jumping and a woman walking, from the demo video."""
    import av
    import cv2

    crops = []
    with av.open(str(fetch("demo_video"))) as video:
        for number, frame in enumerate(video.decode(video=0)):
            if number in CROPS:
                x, y, side = CROPS[number]
                top, left = y - side // 2, x - side // 2
                crop = frame.to_ndarray(format="rgb24")[top : top + side, left : left + side]
                size = (LANDMARK_SIZE, LANDMARK_SIZE)
                crops.append(cv2.resize(crop, size, interpolation=cv2.INTER_AREA))
    return np.stack(crops).astype(np.uint8)


def original_outputs(network: str, image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """What TensorFlow Lite answers to each of (B, H, W, 3) uint8 RGB, under our output names."""
    from ai_edge_litert.interpreter import (  # type: ignore[import-not-found]
        Interpreter,
        OpResolverType,
    )

    detector = network == "detector"
    interpreter = Interpreter(
        str(fetch(f"blazepose_{network}")),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    places = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}
    wanted = DETECTOR_OUTPUTS if detector else LANDMARK_OUTPUTS
    rows: dict[str, list[NDArray[np.float32]]] = {output.name: [] for output in wanted.values()}
    for crop in image.astype(np.float32):
        pixels = crop / 127.5 - 1 if detector else crop / 255
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels[None])
        interpreter.invoke()
        for key, output in wanted.items():
            rows[output.name].append(interpreter.get_tensor(places[key]).reshape(output.shape))
    return {name: np.stack(values) for name, values in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    image = demo_crops()
    arrays: dict[str, NDArray[np.generic]] = {"image": image}
    for network in ("detector", "lite", "full", "heavy"):
        seen = detector_view(image) if network == "detector" else image
        for name, value in original_outputs(network, seen).items():
            arrays[f"{network}/{name}"] = value
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
