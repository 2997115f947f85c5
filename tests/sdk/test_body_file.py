import os
import pickle
import zipfile

import numpy as np
import pytest
import scipy.sparse
from tiny_body import SMPL, official_pickle, python2_pickle, tiny_arrays

from pchmr.bodies import body_from_arrays, load_body
from pchmr_engines.errors import InputError
from pchmr_kernels.skeletons import get_skeleton


def save_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def assert_is_tiny_body(body, num_betas=10):
    arrays = tiny_arrays(num_betas)
    np.testing.assert_array_equal(body.v_template, arrays["v_template"])
    np.testing.assert_array_equal(body.shapedirs, arrays["shapedirs"])
    np.testing.assert_array_equal(body.posedirs, arrays["posedirs"])
    np.testing.assert_array_equal(body.J_regressor, arrays["J_regressor"])
    np.testing.assert_array_equal(body.lbs_weights, arrays["weights"])
    np.testing.assert_array_equal(body.faces, arrays["f"])
    assert tuple(body.parents) == SMPL.parents
    assert body.faces.dtype == body.parents.dtype == np.int32
    assert body.v_template.dtype == body.shapedirs.dtype == body.lbs_weights.dtype == np.float32


def test_an_official_pickle_loads_without_chumpy_and_numpys_old_names(tmp_path):
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(official_pickle(tiny_arrays()))
    assert b"chumpy.ch" in path.read_bytes()
    assert b"numpy.core.multiarray" in path.read_bytes()
    assert_is_tiny_body(load_body(path))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("sparse", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix, np.array])
def test_a_pickle_saved_again_by_python_3_loads(tmp_path, protocol, sparse):
    arrays = tiny_arrays()
    path = tmp_path / "body.pkl"
    content = arrays | {
        "J_regressor": sparse(arrays["J_regressor"]),
        "weights": np.asfortranarray(arrays["weights"]),
    }
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert_is_tiny_body(load_body(path))


def test_npz_loads_and_other_keys_are_ignored(tmp_path):
    path = save_npz(tmp_path / "body.npz", tiny_arrays() | {"bs_style": np.array("lbs")})
    assert_is_tiny_body(load_body(path))


def test_shape_components_are_cut_to_what_is_asked(tmp_path):
    path = save_npz(tmp_path / "body.npz", tiny_arrays(num_betas=300))
    assert load_body(path).num_betas == 10
    assert load_body(path, num_betas=None).num_betas == 300
    assert_is_tiny_body(load_body(path, num_betas=300), num_betas=300)


@pytest.mark.parametrize("change", ["zero", "absent"])
def test_pose_blend_shapes_of_zeros_are_dropped(change):
    arrays = tiny_arrays(pose_blends=False)
    if change == "absent":
        del arrays["posedirs"]
    assert body_from_arrays(arrays).posedirs.shape == (48, 3, 0)


class Attack:
    """Unpickles by making a folder, where it is allowed to."""

    def __init__(self, folder, function=os.mkdir):
        self.folder, self.function = folder, function

    def __reduce__(self):
        return self.function, (str(self.folder),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("where", ["instead", "inside"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, protocol, where):
    attack = Attack(tmp_path / "attacked")
    content = attack if where == "instead" else tiny_arrays() | {"J": [attack]}
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(InputError, match=r"names (posix|nt)\.mkdir, .*nothing of it was run"):
        load_body(path)
    assert not attack.folder.exists()
    pickle.loads(path.read_bytes())  # the attack is a real one
    assert attack.folder.exists()


@pytest.mark.parametrize(
    "named",
    [
        *("builtins.eval", "os.system", "numpy.load", "numpy.core.multiarray.fromfile"),
        *("numpy.testing._private.utils.runstring", "scipy.io.loadmat", "pickle.loads"),
        *("builtins.getattr", "operator.attrgetter", "functools.partial", "chumpyx.ch.Ch"),
    ],
)
def test_no_global_beyond_plain_arrays_is_found(tmp_path, named):
    module, _, name = named.rpartition(".")
    path = tmp_path / "body.pkl"
    path.write_bytes(f"c{module}\n{name}\n(S'1'\ntR.".encode())
    with pytest.raises(InputError, match=named.replace(".", r"\.")):
        load_body(path)


def test_what_chumpy_names_is_never_imported(tmp_path, monkeypatch):
    (tmp_path / "chumpy.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "body.pkl"
    path.write_bytes(official_pickle(tiny_arrays()))
    assert_is_tiny_body(load_body(path))


def test_a_chumpy_expression_without_an_array_says_what_to_do(tmp_path):
    path = tmp_path / "body.pkl"
    data = official_pickle(tiny_arrays())
    position = data.index(pickle.BINSTRING + (1).to_bytes(4, "little") + b"x")
    path.write_bytes(data[: position + 5] + b"y" + data[position + 6 :])
    with pytest.raises(InputError, match=r"is a chumpy\.ch\.Ch without an array of its own"):
        load_body(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty: download it again"),
        (b"<!DOCTYPE html><html>log in</html>", "is a web page saved under this name"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"\x89PNG\r\n", "neither a .npz nor a pickle"),
        (official_pickle(tiny_arrays())[:-5000], "is cut short or damaged"),
        (pickle.dumps([1, 2]), "holds a list; expected a dictionary of arrays"),
        (python2_pickle({"v_template": np.zeros(3)}), "has no shapedirs, J_regressor"),
        (pickle.dumps({**tiny_arrays(), "f": "faces"}), "f is <U5; expected an array of numbers"),
        (pickle.dumps({**tiny_arrays(), "f": np.array([{}])}), "f is object; expected an array of"),
        (pickle.dumps({"f": np.zeros(1, [("x", "f4")])}), "holds an array of 'V4'"),
    ],
)
def test_what_is_no_body_file_is_named(tmp_path, content, says):
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        load_body(path)
    assert str(path) in str(caught.value)


def test_a_truncated_npz_a_plain_zip_and_a_missing_file_are_named(tmp_path):
    whole = save_npz(tmp_path / "body.npz", tiny_arrays()).read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"short\.npz is cut short or damaged"):
        load_body(tmp_path / "short.npz")
    with zipfile.ZipFile(tmp_path / "SMPL.zip", "w") as archive:
        archive.writestr("readme.txt", "models/")
    with pytest.raises(InputError, match="zip archive without arrays: unpack it"):
        load_body(tmp_path / "SMPL.zip")
    with pytest.raises(InputError, match="is not a file"):
        load_body(tmp_path / "none.npz")


def test_an_object_array_in_an_npz_is_refused(tmp_path):
    objects = np.array([print, None], dtype=object)
    path = save_npz(tmp_path / "body.npz", tiny_arrays() | {"weights": objects})
    with pytest.raises(InputError, match="weights is a pickled object and not an array"):
        load_body(path)


@pytest.mark.parametrize(
    ("key", "change", "says"),
    [
        ("weights", np.transpose, r"weights is \(24, 48\); expected \(48, 24\)"),
        ("v_template", np.transpose, r"expected \(3, 3\)"),
        ("shapedirs", lambda x: x[:-1], r"shapedirs is \(47, 3, 10\); expected \(48, 3, 10\)"),
        ("posedirs", lambda x: x[..., :-9], r"posedirs is \(48, 3, 198\); expected \(48, 3, 207\)"),
        ("J_regressor", lambda x: x[:-1], r"J_regressor is \(23, 48\); expected \(24, 48\)"),
        ("f", lambda x: x + 1, "f names vertex 48; there are 48"),
        ("f", lambda x: x[:, :2], r"f is \(16, 2\); expected \(16, 3\)"),
        ("weights", lambda x: x / 2, r"rows of weights sum to 0\.5\.\.0\.5; expected 1"),
        ("kintree_table", lambda x: x[:, ::-1], "is no tree"),
        ("shapedirs", lambda x: np.full_like(x, np.nan), "shapedirs holds NaN or infinity"),
    ],
)
def test_shapes_and_values_that_do_not_fit_are_named(key, change, says):
    arrays = tiny_arrays()
    arrays[key] = change(arrays[key])
    with pytest.raises(InputError, match=says):
        body_from_arrays(arrays, source="body.npz")


def regressor_of(skeleton):
    """Rows that pick SMPL's joint of the same name; the pelvis where it has none."""
    joints = [joint if joint in SMPL.joints else "pelvis" for joint in skeleton.joints]
    return tiny_arrays()["J_regressor"][[SMPL.index(joint) for joint in joints]]


def test_regressors_come_from_the_file_by_skeleton(tmp_path):
    arrays = tiny_arrays()
    assert list(body_from_arrays(arrays).regressors) == ["smpl24"]
    cocoplus = regressor_of(get_skeleton("hmr_cocoplus19"))
    arrays |= {
        "cocoplus_regressor": cocoplus.T,  # some files have it the other way round
        "regressor_blazepose33": regressor_of(get_skeleton("blazepose33")),
    }
    body = load_body(save_npz(tmp_path / "body.npz", arrays))
    assert set(body.regressors) == {"smpl24", "hmr_cocoplus19", "blazepose33"}
    np.testing.assert_array_equal(body.regressor("hmr_cocoplus19"), cocoplus)
    with pytest.raises(InputError, match="cocoplus_regressor has 18 rows; expected 19 or 25"):
        body_from_arrays(arrays | {"cocoplus_regressor": cocoplus[:-1]})
    with pytest.raises(InputError, match="regressor_bones9 is for 'bones9'; known are smpl24"):
        body_from_arrays(arrays | {"regressor_bones9": cocoplus})


def test_a_regressor_follows_from_another_of_its_family_only_where_exact():
    arrays = tiny_arrays() | {"regressor_h36m17": regressor_of(get_skeleton("h36m17"))}
    body = body_from_arrays(arrays)
    np.testing.assert_array_equal(
        body.regressor("spin_h36m17"), regressor_of(get_skeleton("spin_h36m17"))
    )
    with pytest.raises(InputError, match=r"no regressor for 'coco17'; it has h36m17, smpl24"):
        body.regressor("coco17")


def test_a_regressor_file_keeps_its_rows_in_either_memory_order(tmp_path):
    """SPIN's J_regressor_h36m.npy is float64 in Fortran order."""
    body_path = save_npz(tmp_path / "body.npz", tiny_arrays())
    rows = regressor_of(get_skeleton("spin_h36m17"))
    np.save(tmp_path / "J_regressor_h36m.npy", np.asfortranarray(rows))
    regressors = {"spin_h36m17": tmp_path / "J_regressor_h36m.npy"}
    body = load_body(body_path, regressors=regressors)
    np.testing.assert_array_equal(body.regressors["spin_h36m17"], rows)
    assert body.regressors["spin_h36m17"].flags.c_contiguous


def test_a_mirrored_regressor_is_named(tmp_path):
    body_path = save_npz(tmp_path / "body.npz", tiny_arrays())
    path = tmp_path / "J_regressor_h36m.npy"
    np.save(path, regressor_of(get_skeleton("spin_h36m17")))
    with pytest.raises(
        InputError,
        match=r"left_hip, left_knee, left_ankle on the other side .*'spin_h36m17', left leg first",
    ):
        load_body(body_path, regressors={"h36m17": path})


def test_a_regressor_that_does_not_fit_is_named(tmp_path):
    body_path = save_npz(tmp_path / "body.npz", tiny_arrays())
    path = tmp_path / "rows.npy"
    np.save(path, np.full((14, 48), 1 / 48))
    with pytest.raises(InputError, match=r"rows.npy is \(14, 48\); expected \(17, 48\) for h36m17"):
        load_body(body_path, regressors={"h36m17": path})
    np.save(path, np.full((17, 48), 1.0))
    with pytest.raises(InputError, match="rows sum to 48"):
        load_body(body_path, regressors={"h36m17": path})
    path.write_text("<html>")
    with pytest.raises(InputError, match=r"rows\.npy is not a readable \.npy regressor"):
        load_body(body_path, regressors={"h36m17": path})
