"""Results read back: npz and JSON, whole after an error, in memory that does not grow."""

import errno
import json
import shutil
import tracemalloc
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from people_made_up import FACES, VERTICES, make_person

from pchmr.results import ResultWriter, person_to_arrays, source_of
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import InputError


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def test_every_field_reads_back_equal(tmp_path: Path) -> None:
    frames = {0: [make_person(1), make_person(2)], 1: [], 2: [make_person(3, valid=False)]}
    with ResultWriter(tmp_path / "new" / "run.npz", FACES) as results:
        for index, people in frames.items():
            results.add(index, people)
    stored = read(results.path)
    rows = [person_to_arrays(index, person) for index in frames for person in frames[index]]
    assert stored.keys() == {*rows[0], "faces", "frames"}
    for name in rows[0]:
        expected = np.stack([row[name] for row in rows])
        np.testing.assert_array_equal(stored[name], expected, err_msg=name)
        assert stored[name].dtype == expected.dtype
    np.testing.assert_array_equal(stored["faces"], FACES)
    assert stored["frames"] == 3
    assert stored["frame"].tolist() == [0, 0, 2]
    assert stored["valid"].tolist() == [True, True, False]
    np.testing.assert_array_equal(stored["camera"][0], (500, 510, 320, 240))
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]
    assert list((tmp_path / "new").iterdir()) == [results.path]


def test_the_file_tells_whose_body_it_is(open_bundle: Bundle, tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "run.npz", FACES, bundle=open_bundle) as results:
        results.add(0, [make_person(0)])
    stored = read(results.path)
    assert open_bundle.manifest.body is not None
    assert str(stored["bundle"]) == "open"
    assert str(stored["body_sha256"]) == open_bundle.manifest.body.sha256
    assert str(stored["skeleton"]) == "smpl24"


def test_the_frame_is_the_sources_own_where_some_were_dropped(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "run.npz", FACES, tmp_path / "run.json") as results:
        results.add(7, [make_person(0, frame=2)])
    assert read(results.path)["frame"].tolist() == [7]
    assert json.loads((tmp_path / "run.json").read_text())["frames"][0]["frame"] == 7


def test_a_person_without_a_target(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "run.npz", FACES, tmp_path / "run.json") as results:
        results.add(0, [make_person(0, target_joints=None)])
    assert np.isnan(read(results.path)["target_joints"]).all()
    (frame,) = json.loads((tmp_path / "run.json").read_text(), parse_constant=pytest.fail)["frames"]
    assert frame["people"][0]["target_joints"] is None


def test_groups_are_kept_apart(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "run.npz", FACES, groups=("serial", "parallel")) as results:
        results.add(0, [make_person(1)], "serial")
        results.add(0, [make_person(2), make_person(3)], "parallel")
    stored = read(results.path)
    assert stored["serial_vertices"].shape == (1, VERTICES, 3)
    assert stored["parallel_vertices"].shape == (2, VERTICES, 3)
    np.testing.assert_array_equal(stored["parallel_joints"][1], make_person(3).joints)
    assert stored["frames"] == 1
    assert "vertices" not in stored


def test_a_run_without_people_is_readable(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "run.npz", FACES, tmp_path / "run.json") as results:
        for index in range(4):
            results.add(index, [])
    stored = read(results.path)
    assert len(stored["vertices"]) == len(stored["t_ns"]) == 0
    assert stored["frames"] == 4
    frames = json.loads((tmp_path / "run.json").read_text())["frames"]
    assert frames == [{"frame": index, "people": []} for index in range(4)]


def test_a_run_without_frames_is_readable(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "run.npz", FACES, tmp_path / "run.json") as results:
        pass
    assert read(results.path)["frames"] == 0
    assert json.loads((tmp_path / "run.json").read_text()) == {"frames": []}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_middle_keeps_what_was_done(
    error: type[BaseException], tmp_path: Path
) -> None:
    def run() -> None:
        with ResultWriter(tmp_path / "run.npz", FACES, tmp_path / "run.json") as results:
            results.add(0, [make_person(1)])
            raise error

    with pytest.raises(error):
        run()
    assert read(tmp_path / "run.npz")["track_id"].tolist() == [1]
    assert len(json.loads((tmp_path / "run.json").read_text())["frames"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "run.npz"]


def test_a_row_that_was_interrupted_shifts_none_of_the_next(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "run.npz", FACES) as results:
        results.add(0, [make_person(1)])
        rotmats = results._groups[""]._files["rotmats"]
        interrupted = mock.patch.object(rotmats, "write", side_effect=KeyboardInterrupt)
        with interrupted, pytest.raises(KeyboardInterrupt):
            results.add(1, [make_person(2)])
        results.add(2, [make_person(3)])
    arrays = read(tmp_path / "run.npz")
    assert arrays["track_id"].tolist() == [1, 3]
    np.testing.assert_array_equal(arrays["vertices"][1], make_person(3).vertices)
    np.testing.assert_array_equal(arrays["rotmats"][1], make_person(3).rotmats)


def test_json_holds_what_the_npz_holds(tmp_path: Path) -> None:
    person = make_person(4)
    with ResultWriter(tmp_path / "run.npz", FACES, tmp_path / "run.json") as results:
        results.add(0, [person])
    (frame,) = json.loads((tmp_path / "run.json").read_text())["frames"]
    (row,) = frame["people"]
    assert row["track_id"] == 4
    assert row["valid"] is True
    assert row["bbox"] == [1.0, 2.0, 3.5, 4.25]
    np.testing.assert_allclose(row["joints"], person.joints, atol=1e-5)
    assert "vertices" not in row
    assert all(len(str(value)) < 10 for joint in row["joints"] for value in joint)


def test_a_body_of_another_size_is_refused(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "run.npz", FACES) as results:
        results.add(0, [make_person(0)])
        with pytest.raises(ValueError, match=r"vertices is \(6, 3\); expected \(5, 3\)"):
            results.add(1, [make_person(1, vertices=np.zeros((6, 3), np.float32))])
        results.add(2, [make_person(2)])
    assert read(results.path)["track_id"].tolist() == [0, 2]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file/run\.npz cannot be written .*name another"):
        ResultWriter(tmp_path / "file" / "run.npz", FACES)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    results = ResultWriter(tmp_path / "run.npz", FACES, tmp_path / "run.json")
    results.add(0, [make_person(1)])
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(InputError, match=r"run\.npz cannot be written \(No space .*: make room"):
        results.close()
    assert list(tmp_path.iterdir()) == []


def test_closed_twice(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "run.npz", FACES, tmp_path / "run.json") as results:
        results.add(0, [make_person(1)])
        assert results.close() == tmp_path / "run.npz"
    assert read(results.path)["track_id"].tolist() == [1]


def test_whose_results_a_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    assert source_of(path) == ""
    for content in (b"", b"text", np.lib.format.magic(1, 0)):
        path.write_bytes(content)
        assert source_of(path) == ""
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert source_of(path) == ""
    ResultWriter(path, FACES).close()
    assert source_of(path) == ""
    ResultWriter(path, FACES, source="takes/walk.mp4").close()
    assert source_of(path) == "takes/walk.mp4"


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    vertices = np.zeros((4000, 3), np.float32)
    tracemalloc.start()
    with ResultWriter(tmp_path / "run.npz", FACES) as results:
        for index in range(500):  # 24 MB
            results.add(index, [make_person(0, vertices=vertices)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read(results.path)["vertices"].shape == (500, 4000, 3)
    assert peak < 8e6
