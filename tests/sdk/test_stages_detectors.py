"""Person detectors of other families: hand-made graphs whose answers are known."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pchmr import Pipeline
from pchmr.blazepose import Landmarks
from pchmr.crops import Roi
from pchmr.stages.detector_formats import FORMATS
from pchmr.stages.detectors import PAD, BoxDetection, BoxDetector, detector_from_onnx
from pchmr.tracking import RoiTracker
from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.engine import TensorSpec
from pchmr_engines.errors import InputError
from pchmr_engines.manifest import Graph, Provenance, Stage

SIZE = (96, 128)  # of the network's picture, height and width
FRAME = (480, 640)
PEOPLE = np.array([[100.0, 50, 180, 300], [400, 100, 520, 460]])  # px of the frame
SCORES = np.array([0.9, 0.7])
CAR = np.array([200.0, 200, 400, 300])
SCALE = 128 / 640

Answer = tuple[np.ndarray, ...]


def grid_rows() -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) cells and (N,) strides of YOLOX, in its order."""
    cells, strides = [], []
    for stride in (8, 16, 32):
        for y in range(SIZE[0] // stride):
            for x in range(SIZE[1] // stride):
                cells.append((x, y))
                strides.append(stride)
    return np.array(cells), np.array(strides)


def answers(top: float = 0.0) -> dict[str, Answer]:
    """What each family says of PEOPLE, twice each, and of CAR; `top`: rows of grey above."""
    boxes = np.concatenate([PEOPLE, PEOPLE + 4, CAR[None]]) * SCALE
    scores, classes = np.array([*SCORES, *(SCORES - 0.2), 0.95]), np.array([0, 0, 0, 0, 2])
    centre, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    one_hot = np.eye(3)[classes]
    cells, strides = grid_rows()
    raw = np.zeros((len(cells), 8))
    raw[:, 4:] = 0.01
    rows = np.arange(0, 25, 5)
    raw[rows, :2] = centre / strides[rows, None] - cells[rows]
    raw[rows, 2:4] = np.log(extent / strides[rows, None])
    raw[rows, 4:] = np.concatenate([scores[:, None], one_hot], 1)
    decoded = np.concatenate([centre, extent, scores[:, None], one_hot], 1)
    below = np.array([0, top])
    yolov8 = np.concatenate([centre + below, extent, scores[:, None] * one_hot], 1).T
    apart = [0, 1, 4]
    tidy = np.concatenate([boxes, scores[:, None]], 1)[apart]
    last = np.concatenate([boxes + np.tile(below, 2), scores[:, None], classes[:, None]], 1)[apart]
    return {
        "yolox": (raw[None],),
        "yolox-decoded": (decoded[None],),
        "yolov8": (yolov8[None],),
        "rtmdet": (tidy[None], classes[None, apart]),
        "yolov10": (last[None],),
    }


def write_detector(path: Path, answer: Answer, shape: tuple[int | str, ...], free: bool) -> Path:
    """A graph that gives `answer` for any picture. free: its number of boxes is not said."""
    constants, nodes, outputs = [numpy_helper.from_array(np.float32(0), "zero")], [], []
    nodes.append(helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    for number, values in enumerate(answer):
        whole = values.dtype.kind == "i"
        constants.append(numpy_helper.from_array(values.astype(np.float32), f"known_{number}"))
        nodes.append(helper.make_node("Add", [f"known_{number}", "nothing"], [f"sum_{number}"]))
        kind = TensorProto.INT64 if whole else TensorProto.FLOAT
        nodes.append(helper.make_node("Cast", [f"sum_{number}"], [f"out_{number}"], to=kind))
        sides: list[Any] = [1, *("n" for _ in values.shape[1:])] if free else list(values.shape)
        outputs.append(helper.make_tensor_value_info(f"out_{number}", kind, sides))
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))
    graph = helper.make_graph(nodes, "detector", [given], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_people(format: str, tmp_path: Path) -> None:
    """Both people once, not the car, in the frame's pixels."""
    top = (SIZE[0] - FRAME[0] * SCALE) / 2 if FORMATS[format].centred else 0.0
    assert top == 0  # a frame of the network's own shape; others below
    path = write_detector(
        tmp_path / "d.onnx", answers(top)[format], (1, 3, *SIZE), format == "rtmdet"
    )
    found = detector_from_onnx(path, format, 1)(np.zeros((*FRAME, 3), np.uint8))
    assert [person.score for person in found] == pytest.approx(SCORES, abs=1e-6)
    for person, box in zip(found, PEOPLE, strict=True):
        np.testing.assert_allclose(person.box, box, atol=1e-2)
        x0, y0, x1, y1 = person.box
        assert person.roi.center == pytest.approx(((x0 + x1) / 2, (y0 + y1) / 2))
        assert person.roi.size == pytest.approx(1.25 * (y1 - y0))


@pytest.mark.parametrize(("format", "left"), [("yolov8", 24), ("yolox-decoded", 0)])
def test_a_tall_frame_is_filled_up_with_grey(format: str, left: int) -> None:
    """A frame of 240 x 200 becomes 96 x 80 of 96 x 128 pixels, in the middle or on the left."""
    seen: list[np.ndarray] = []
    box = np.array([left + 8.0, 10, left + 40, 74])
    row = [*(box[:2] + box[2:]) / 2, *(box[2:] - box[:2])]
    out = {"yolov8": np.array([[*row, 0.8]]).T, "yolox-decoded": np.array([[*row, 1.0, 0.8]])}

    def run(picture: np.ndarray) -> list[np.ndarray]:
        seen.append(picture)
        return [out[format][None]]

    detect = BoxDetector(run, (1, 3, *SIZE), "float32", format)
    frame = np.zeros((240, 200, 3), np.uint8)
    frame[..., 2] = 255  # red
    (person,) = detect(frame)
    np.testing.assert_allclose(person.box, (20, 25, 100, 185), atol=1e-6)
    picture = seen[-1][0]
    assert picture.shape == (3, *SIZE)
    rgb = FORMATS[format].rgb
    unit = 1 / 255 if rgb else 1.0
    red = picture[0 if rgb else 2]
    np.testing.assert_allclose(red[:, left : left + 80], 255 * unit)
    outside = np.delete(red, np.s_[left : left + 80], 1)
    np.testing.assert_allclose(outside, PAD * unit, rtol=1e-6)
    blue = picture[2 if rgb else 0]
    assert not blue[:, left : left + 80].any()


def test_rtmdet_is_normalised_and_takes_rows_of_pixels() -> None:
    seen: list[np.ndarray] = []

    def run(picture: np.ndarray) -> list[np.ndarray]:
        seen.append(picture)
        return [np.zeros((1, 0, 5)), np.zeros((1, 0), np.int64)]

    detect = BoxDetector(run, (1, *SIZE, 3), "float32", "rtmdet")
    assert detect(np.full((*FRAME, 3), (103, 116, 124), np.uint8)) == []
    assert seen[-1].shape == (1, *SIZE, 3)
    assert np.abs(seen[-1]).max() < 0.02


def test_a_box_beyond_the_frame_is_cut_and_a_speck_left_out() -> None:
    rows = np.array([[-10.0, -10, 40, 96, 0.9, 0], [50.0, 50, 51, 51, 0.9, 0]])
    detect = BoxDetector(lambda _: [rows[None]], (1, 3, *SIZE), "float32", "yolov10")
    (person,) = detect(np.zeros((*FRAME, 3), np.uint8))
    np.testing.assert_allclose(person.box, (0, 0, 200, 480))


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("ssd", "detector format 'ssd'; expected one of yolox"),
        ("yolox", r"gives \[\(1, 3, 6\)\], which is not what format 'yolox' says"),
        ("rtmdet", "which is not what format 'rtmdet' says"),
    ],
)
def test_another_format_is_an_error_at_once(format: str, message: str, tmp_path: Path) -> None:
    path = write_detector(tmp_path / "d.onnx", answers()["yolov10"], (1, 3, *SIZE), False)
    with pytest.raises(InputError, match=message):
        detector_from_onnx(path, format, 1)


def test_what_is_no_detector_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.onnx is not a file; expected a person detector"):
        detector_from_onnx(tmp_path / "none.onnx", "yolox", 1)
    path = tmp_path / "text.onnx"
    path.write_text("hello")
    with pytest.raises(InputError, match=r"text\.onnx is no ONNX detector"):
        detector_from_onnx(path, "yolox", 1)
    given = [helper.make_tensor_value_info(x, TensorProto.FLOAT, (1, 3, 8, 8)) for x in "abc"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])], "", given[:2], given[2:]
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "two.onnx")
    with pytest.raises(InputError, match=r"two\.onnx does not run on one picture: .*missing"):
        detector_from_onnx(tmp_path / "two.onnx", "yolox", 1)
    with pytest.raises(InputError, match=r"takes \(1, 5\); expected \(1, 3, H, W\)"):
        BoxDetector(lambda _: [], (1, 5), "float32", "yolox")


def test_open_sides_are_640_pixels(tmp_path: Path) -> None:
    path = write_detector(
        tmp_path / "d.onnx", answers()["rtmdet"], ("n", 3, "height", "width"), True
    )
    detect = detector_from_onnx(path, "rtmdet", 1)
    assert detect._size == (640, 640)


# Boxes and the tracker


def landmarks_in(box: np.ndarray) -> Landmarks:
    points = np.ones((33, 3), np.float32)
    points[:, :2] = np.linspace(box[:2], box[2:], 33)
    middle, height = (box[:2] + box[2:]) / 2, box[3] - box[1]
    auxiliary = np.array([middle, middle - (0, height / 2)], np.float32)
    ones = np.ones(33, np.float32)
    roi = Roi((float(middle[0]), float(middle[1])), float(1.25 * height))
    return Landmarks.of(points, ones, ones, auxiliary, np.zeros((33, 3), np.float32), 0.95, roi)


def test_people_keep_their_ids_beside_newcomers() -> None:
    """Whoever is followed is not looked at again, however many there are; newcomers are."""
    people = [np.array([x, 100.0, x + 60, 300]) for x in (50, 200, 350, 500, 650, 800)]
    looks: list[Roi] = []

    def pose(rois: Any) -> list[Landmarks]:
        looks.extend(rois)
        nearest = [
            min(people, key=lambda box: abs((box[0] + box[2]) / 2 - roi.center[0])) for roi in rois
        ]
        seen = zip(nearest, rois, strict=True)
        return [Landmarks(landmarks_in(box).raw, roi) for box, roi in seen]

    tracker = RoiTracker(max_people=8, look_every=5)
    shown = people[:5]
    ids = []
    for frame in range(12):
        shown = people if frame > 6 else people[:5]
        boxes = [BoxDetection(0.9 - 0.01 * n, tuple(box.tolist())) for n, box in enumerate(shown)]
        looks.clear()
        ids.append([track.track_id for track in tracker.step(lambda boxes=boxes: boxes, pose)])
    assert ids[0] == ids[6] == [0, 1, 2, 3, 4]
    assert ids[-1] == [0, 1, 2, 3, 4, 5]
    assert len(looks) == 6  # each where they were, nobody twice


def known_boxes(frame: np.ndarray, pipe: Pipeline) -> list[list[float]]:
    return [list(person.bbox) for person in pipe(frame)]


def test_a_pipeline_with_a_detector_of_the_users_own(
    pipelines: Callable[[str], Pipeline],
    load_open: Callable[..., Pipeline],
    two_people: np.ndarray,
    tmp_path: Path,
) -> None:
    """It is told where both people are, and the tracker finds them as it did itself."""
    expected = pipelines("parallel")(two_people)
    scale = 640 / two_people.shape[1]
    rows = [[*(scale * np.array(person.bbox)), 0.9, 0.0] for person in expected]
    answer = np.array(rows)[None]
    answer[..., [1, 3]] += (640 - round(two_people.shape[0] * scale)) // 2
    path = write_detector(tmp_path / "d.onnx", (answer,), (1, 3, 640, 640), False)
    options: Mapping[str, Any] = {"detector": path, "detector_format": "yolov10", "max_people": 2}
    with load_open(**options, detector_stride=1) as pipe:
        found = pipe(two_people)
        again = pipe(two_people)
    assert len(found) == 2
    assert [person.track_id for person in again] == [person.track_id for person in found]
    found.sort(key=lambda person: person.bbox[0])
    expected.sort(key=lambda person: person.bbox[0])
    for person, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(person.bbox, other.bbox, atol=25)
    with pytest.raises(InputError, match="detector_stride is 0; expected 1 or more"):
        load_open(detector_stride=0)


def test_a_bundles_detector_of_boxes(
    open_bundle: Bundle,
    load_open: Callable[..., Pipeline],
    two_people: np.ndarray,
    tmp_path: Path,
) -> None:
    """Chosen by the settings of its stage."""
    (person,) = load_open("mesh-only")(two_people)
    scale = 640 / two_people.shape[1]
    answer = np.array([[*(scale * np.array(person.bbox)), 0.9]])[None]
    graph = write_detector(
        tmp_path / "d.onnx", (answer, np.zeros((1, 1), np.int64)), (1, 3, 640, 640), False
    )
    made_up = Stage(
        "boxes",
        "detector",
        (Graph("fp32", "stages/boxes.onnx"),),
        (TensorSpec("image", (1, 3, 640, 640), "float32"),),
        (
            TensorSpec("out_0", (1, 1, 5), "float32"),
            TensorSpec("out_1", (1, 1), "int64"),
        ),
        Provenance("made up", "none"),
        settings={"format": "rtmdet", "min_score": 0.5},
    )
    manifest = open_bundle.manifest
    kept = tuple(stage for stage in manifest.stages if stage.role != "detector")
    manifest = replace(manifest, stages=(made_up, *kept))
    files = {
        ref.file: graph if ref.file == "stages/boxes.onnx" else open_bundle.root / ref.file
        for ref in manifest.files()
    }
    bundle = write_bundle(tmp_path / "bundle", manifest, files)
    (found,) = load_open("mesh-only", bundle=bundle)(two_people)
    np.testing.assert_allclose(found.bbox, person.bbox, atol=25)
