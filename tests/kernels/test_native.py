import ctypes
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from kernel_cases import TOLERANCE, dense, sparse

import pchmr_kernels
from pchmr_kernels import native, reference
from pchmr_kernels.calibration import BonesStruct
from pchmr_kernels.smooth import OneEuroFilter
from pchmr_kernels.weights import SparseWeights, WeightsStruct

NATIVE = Path(native.__file__).parent / "native"
ROOT = Path(__file__).parents[2]


def random_blend(rng, batch, vertices, bones, slots):
    weights = sparse(rng, vertices, bones, slots)
    points = rng.uniform(-1, 1, (batch, vertices, 3)).astype(np.float32)
    transforms = rng.uniform(-1, 1, (batch, bones, 3, 4)).astype(np.float32)
    delta = rng.uniform(-1, 1, (batch, bones, 3)).astype(np.float32)
    return points, transforms, weights, delta


def expected_blend(points, transforms, weights, delta):
    A, W = dense(weights, transforms.shape[1])
    R, t = transforms[..., :3].astype(np.float64), transforms[..., 3].astype(np.float64)
    return reference.blend(points, R, t, delta.astype(np.float64), A, W)


def test_two_bones_by_hand(each_isa):
    transforms = np.zeros((1, 2, 3, 4), np.float32)
    transforms[0, 0, :, :3] = np.eye(3)
    transforms[0, 1] = [[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30]]
    weights = SparseWeights(
        np.array([[0, 1]], np.int32),
        np.array([[0.25, 0.75]], np.float32),
        np.array([[0.125, 0.5]], np.float32),
    )
    vertices = np.array([[[1, 2, 3]]], np.float32)
    delta = np.array([[[8, 0, 0], [0, 2, 0]]], np.float32)
    moved = each_isa(lambda: native.blend(vertices, transforms, weights, delta))
    for result in moved.values():
        assert result.tolist() == [[[0.25 + 0.75 * 8 + 1, 0.5 + 0.75 * 21 + 1, 0.75 + 0.75 * 33]]]


@pytest.mark.parametrize("slots", range(1, 9))
@pytest.mark.parametrize(
    ("batch", "vertices", "bones"), [(0, 7, 3), (1, 1, 1), (5, 31, 23), (2, 257, 64)]
)
def test_blend_agrees_with_the_reference_in_every_shape(
    batch, vertices, bones, slots, rng, each_isa
):
    points, transforms, weights, delta = random_blend(rng, batch, vertices, bones, slots)
    expected = expected_blend(points, transforms, weights, delta)
    skinned = expected_blend(points, transforms, weights, 0 * delta)
    for result in each_isa(lambda: native.blend(points, transforms, weights, delta)).values():
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=TOLERANCE["float32"])
    for result in each_isa(lambda: native.blend(points, transforms, weights)).values():
        np.testing.assert_allclose(result, skinned, atol=TOLERANCE["float32"])


def test_the_result_depends_on_neither_threads_nor_place_in_the_batch(rng, each_isa):
    points, transforms, weights, delta = random_blend(rng, 5, 13_001, 23, 4)

    def compare():
        whole = native.blend(points, transforms, weights, delta)
        for threads in (2, 3, 8, 0):
            again = native.blend(points, transforms, weights, delta, threads=threads)
            np.testing.assert_array_equal(again, whole)
        for b in (0, 4):
            alone = native.blend(
                points[b : b + 1], transforms[b : b + 1], weights, delta[b : b + 1]
            )
            np.testing.assert_array_equal(alone[0], whole[b])

    each_isa(compare)


def test_copies_of_one_vertex_move_alike_wherever_they_stand(rng, each_isa):
    points, transforms, weights, delta = random_blend(rng, 1, 37, 23, 4)
    same = SparseWeights(
        *(
            np.repeat(array[:1], 37, 0)
            for array in (weights.indices, weights.values, weights.offsets)
        )
    )
    points[:] = points[:, :1]
    for result in each_isa(lambda: native.blend(points, transforms, same, delta)).values():
        assert (result == result[:, :1]).all()


def test_centre_keeps_float32_precise_far_from_the_origin(rng):
    points, transforms, weights, delta = random_blend(rng, 3, 100, 23, 4)
    centre = np.array([[0, 0, 60], [-3, 2, 50], [1, 1, 40]], np.float32)
    far = points + centre[:, None]
    near = expected_blend(far.astype(np.float64) - centre[:, None], transforms, weights, delta)
    moved = native.blend(far, transforms, weights, delta, centre=centre)
    np.testing.assert_allclose(
        moved, near + centre[:, None].astype(np.float64), atol=TOLERANCE["float32 at 60 m"]
    )


def test_input_need_not_be_contiguous_and_out_may_be_the_input(rng):
    points, transforms, weights, delta = random_blend(rng, 2, 40, 23, 4)
    expected = native.blend(points, transforms, weights, delta)
    strided = np.ascontiguousarray(points.transpose(2, 1, 0)).transpose(2, 1, 0)
    turned = np.ascontiguousarray(transforms[..., ::-1])[..., ::-1]
    assert not strided.flags.c_contiguous
    np.testing.assert_array_equal(native.blend(strided, turned, weights, delta), expected)
    out = np.full_like(points, np.nan)
    assert native.blend(points, transforms, weights, delta, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert native.blend(points, transforms, weights, delta, out=points) is points
    np.testing.assert_array_equal(points, expected)


def test_nothing_is_written_beyond_the_last_vertex(rng, each_isa):
    points, transforms, weights, delta = random_blend(rng, 1, 5, 3, 4)
    memory = np.full(5 * 3 + 16, 7, np.float32)

    def compare():
        native.blend(points, transforms, weights, delta, out=memory[:15].reshape(1, 5, 3))
        assert (memory[15:] == 7).all()

    each_isa(compare)


def test_wrong_arrays_are_refused_by_name(rng):
    points, transforms, weights, delta = random_blend(rng, 2, 40, 23, 4)
    with pytest.raises(TypeError, match=r"vertices is float64; expected float32: use \.astype"):
        native.blend(points.astype(np.float64), transforms, weights)
    with pytest.raises(ValueError, match=r"vertices is \(2, 39, 3\); expected \(2, 40, 3\)"):
        native.blend(points[:, 1:], transforms, weights)
    with pytest.raises(ValueError, match=r"transforms is \(2, 23, 12\); expected \(2, 23, 3, 4\)"):
        native.blend(points, transforms.reshape(2, 23, 12), weights)
    with pytest.raises(ValueError, match="transforms are of 2 bones; weights name 23"):
        native.blend(points, transforms[:, :2], weights)
    with pytest.raises(ValueError, match=r"delta is \(1, 23, 3\); expected \(2, 23, 3\)"):
        native.blend(points, transforms, weights, delta[:1])
    for out in (
        points.astype(np.float64),
        points[:1],
        np.empty((2, 3, 40), "f").transpose(0, 2, 1),
    ):
        with pytest.raises(
            ValueError, match=r"expected a writeable C-contiguous float32 \(2, 40, 3\)"
        ):
            native.blend(points, transforms, weights, out=out)


@pytest.mark.parametrize("writeable", [True, False])
def test_an_address_is_of_contiguous_data(writeable, rng):
    array = rng.normal(size=(4, 6))
    array.flags.writeable = writeable
    address = ctypes.cast(native.address(array), ctypes.c_void_p).value
    assert address == array.__array_interface__["data"][0]
    with pytest.raises(ValueError, match=r"strides of \(6, 4\) are \(8, 48\)"):
        native.address(array.T)


def test_the_instruction_set_can_be_chosen_but_not_invented():
    assert native.instruction_sets()[0] == "baseline"
    with pytest.raises(ValueError, match=r"'mmx' is not one of this machine's: baseline"):
        native.use_instruction_set("mmx")
    code = "from pchmr_kernels import native; print(native.instruction_set())"
    folder = str(Path(pchmr_kernels.__file__).parents[1])
    for isa in ("baseline", "mmx"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PCHMR_ISA": isa, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
        )
        assert (run.stdout == "baseline\n") == (isa == "baseline")
        assert ("'mmx' is not one of this machine's" in run.stderr) == (isa == "mmx")


def test_a_library_that_is_missing_or_old_names_the_cure(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(native, "VERSION", 99)
        with pytest.raises(ImportError, match=r"version 3, expected 99: build it again with  pip"):
            native.library.__wrapped__()
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    with pytest.raises(
        ImportError, match=r"cannot be loaded .* pip install -e \. .*C\+\+17 compiler"
    ):
        native.library.__wrapped__()


def test_building_without_a_compiler_says_what_to_install(tmp_path):
    if find_spec("setuptools") is None:  # not imported here: it minds a distutils already there
        pytest.skip("not tested: building (no setuptools here)")
    empty = {name: value for name, value in os.environ.items() if name != "CXX"} | {"PATH": ""}
    run = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "-b", tmp_path, "-t", tmp_path],
        cwd=ROOT,
        env=empty,
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    assert "no C++17 compiler found" in run.stderr
    assert "apt install g++" in run.stderr


def test_the_header_is_plain_c_and_its_structs_are_those_of_ctypes(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("not tested: the C header (no C compiler here)")
    source = tmp_path / "sizes.c"
    source.write_text(
        '#include <stdio.h>\n#include "pchmr_smooth.h"\n'
        "int main(void) {\n"
        '    printf("%zu %zu %zu %d", sizeof(pchmr_weights), sizeof(pchmr_bones),'
        "           sizeof(pchmr_filter), PCHMR_VERSION);\n"
        "    return 0;\n}\n"
    )
    program = tmp_path / "sizes"
    flags = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{NATIVE}")
    subprocess.run([compiler, *flags, source, "-o", program], check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    sizes = map(ctypes.sizeof, (WeightsStruct, BonesStruct, OneEuroFilter))
    assert printed == " ".join(map(str, (*sizes, native.VERSION)))
