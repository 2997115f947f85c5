"""Body models in SMPL's file format, checked and with their joint regressors.

Vertex and face counts and regressors always come from the file. A body file's frame: y up, the
person's left at +x, facing +z, metres; the global rotation takes it to any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pchmr_engines.errors import InputError
from pchmr_kernels.conversions import get_conversion
from pchmr_kernels.skeletons import SKELETONS, get_skeleton

from .smpl_file import REGRESSOR_PREFIX, REQUIRED, read_smpl_file

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

_COCOPLUS = {19: "hmr_cocoplus19", 25: "hmmr25"}
_MIRRORED_M = 0.02  # left and right this far on each other's side are no accident


@dataclass(frozen=True, eq=False)
class Body:
    """A body model. V vertices, F faces, J joints, B shape components; float32 unless said.

    v_template: (V, 3), metres; shapedirs: (V, 3, B); posedirs: (V, 3, 9 (J - 1)), last axis 0 when
    the body has no pose blend shapes; J_regressor: (J, V), rest joints from the shaped mesh;
    parents: (J,) int32, -1 at the root; lbs_weights: (V, J), rows sum to 1; faces: (F, 3) int32;
    regressors: by skeleton, (N, V), its joints from the posed mesh.
    """

    v_template: Float32
    shapedirs: Float32
    posedirs: Float32
    J_regressor: Float32
    parents: npt.NDArray[np.int32]
    lbs_weights: Float32
    faces: npt.NDArray[np.int32]
    regressors: Mapping[str, Float32] = field(default_factory=dict)

    @property
    def num_betas(self) -> int:
        return self.shapedirs.shape[2]

    def regressor(self, skeleton: str) -> Float32:
        """(N, V): the joints of `skeleton` from the posed mesh; the file's own, or one that follows
        exactly from the file's.

        Raises: InputError naming the skeletons there are.
        """
        if skeleton in self.regressors:
            return self.regressors[skeleton]
        for name in self.regressors:
            if _follows_exactly(name, skeleton):
                return get_conversion(name, skeleton)(self.regressors[name])
        raise InputError(
            f"this body has no regressor for {skeleton!r}; it has {', '.join(self.regressors)}: "
            f"load it with regressors={{{skeleton!r}: 'file.npy'}}"
        )


def load_body(
    path: Path | str,
    num_betas: int | None = 10,
    regressors: Mapping[str, Path | str] | None = None,
) -> Body:
    """A body from an official SMPL .pkl or .npz, or an open body's .npz.

    num_betas: how many shape components to keep at most, None for all of the file's.
    regressors: extra ones by skeleton name, each an .npy of shape (N, V). The name fixes the order:
    SPIN's J_regressor_h36m.npy is `spin_h36m17`, left leg first; Pose2Mesh's is `h36m17`.

    Raises:
        InputError: a file that is no body or no regressor, or one with left and right swapped.
    """
    body = body_from_arrays(read_smpl_file(path), num_betas, str(path))
    extra = {name: _read_regressor(body, name, Path(p)) for name, p in (regressors or {}).items()}
    return replace(body, regressors={**body.regressors, **extra})


def body_from_arrays(
    arrays: Mapping[str, Array], num_betas: int | None = None, source: str = "body"
) -> Body:
    """A body from arrays under SMPL's keys, as `read_smpl_file` and `Bundle.body` give them.

    Without `regressor_smpl24` the rest-pose J_regressor stands in for it.

    Raises: InputError for a missing key or shapes that do not fit, naming `source`.
    """
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise InputError(f"{source} has no {', '.join(missing)}; expected {', '.join(REQUIRED)}")
    V, J = len(arrays["v_template"]), arrays["kintree_table"].shape[-1]
    posedirs = arrays.get("posedirs")
    if posedirs is None or not np.any(posedirs):
        posedirs = np.zeros((V, 3, 0), np.float32)
    shapedirs = arrays["shapedirs"][..., :num_betas]
    expected = {
        "v_template": (arrays["v_template"], (V, 3)),
        "shapedirs": (shapedirs, (V, 3, shapedirs.shape[-1])),
        "posedirs": (posedirs, (V, 3, 9 * (J - 1) if posedirs.shape[-1] else 0)),
        "J_regressor": (arrays["J_regressor"], (J, V)),
        "weights": (arrays["weights"], (V, J)),
        "kintree_table": (arrays["kintree_table"], (2, J)),
        "f": (arrays["f"], (len(arrays["f"]), 3)),
    }
    for key, (array, shape) in expected.items():
        if array.shape != shape:
            raise InputError(
                f"{source}: {key} is {array.shape}; expected {shape} beside a v_template of "
                f"{arrays['v_template'].shape}: this is not an SMPL body file, or a damaged one"
            )
        if not np.isfinite(array).all():
            raise InputError(f"{source}: {key} holds NaN or infinity: the file is damaged")
    parents, faces = arrays["kintree_table"][0].astype(np.int64), arrays["f"].astype(np.int64)
    parents[0] = -1  # official files write 2^32 - 1
    if not (parents[1:] < np.arange(1, J)).all() or (parents[1:] < 0).any():
        raise InputError(f"{source}: kintree_table is no tree: each parent must precede its child")
    if faces.size and not 0 <= faces.min() <= faces.max() < V:
        raise InputError(f"{source}: f names vertex {faces.max()}; there are {V}")
    sums = arrays["weights"].sum(1)
    if not np.abs(sums - 1).max() < 1e-3:
        raise InputError(
            f"{source}: rows of weights sum to {sums.min():.4g}..{sums.max():.4g}; expected 1"
        )
    return Body(
        _f32(arrays["v_template"]),
        _f32(shapedirs),
        _f32(posedirs),
        _f32(arrays["J_regressor"]),
        parents.astype(np.int32),
        _f32(arrays["weights"]),
        faces.astype(np.int32),
        _file_regressors(arrays, V, source),
    )


def _f32(array: Array) -> Float32:
    return np.ascontiguousarray(array, np.float32)


def _file_regressors(arrays: Mapping[str, Array], V: int, source: str) -> dict[str, Float32]:
    found = {
        key.removeprefix(REGRESSOR_PREFIX): array
        for key, array in arrays.items()
        if key.startswith(REGRESSOR_PREFIX)
    }
    if "cocoplus_regressor" in arrays:
        rows = arrays["cocoplus_regressor"]
        # The variants of the file store it either way round.
        rows = rows.T if rows.shape[0] == V else rows
        if len(rows) not in _COCOPLUS:
            raise InputError(
                f"{source}: cocoplus_regressor has {len(rows)} rows; expected 19 or 25"
            )
        found[_COCOPLUS[len(rows)]] = rows
    if arrays["kintree_table"].shape[-1] == len(get_skeleton("smpl24")):
        found.setdefault("smpl24", arrays["J_regressor"])
    for name, array in found.items():
        _check_regressor(name, array, V, f"{source}: {REGRESSOR_PREFIX}{name}")
    return {name: _f32(array) for name, array in found.items()}


def _read_regressor(body: Body, skeleton: str, path: Path) -> Float32:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not a readable .npy regressor ({error})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds several arrays; expected one regressor (.npy)")
    _check_regressor(skeleton, array, len(body.v_template), str(path))
    swapped = _swapped_pairs(body, skeleton, array)
    if swapped:
        hint = "; SPIN's own file is 'spin_h36m17', left leg first" if "h36m" in skeleton else ""
        raise InputError(
            f"{path} as {skeleton!r} puts {', '.join(swapped)} on the other side of the body: its "
            f"rows are in another order, give the skeleton it was made for{hint}"
        )
    return _f32(array)


def _check_regressor(skeleton: str, array: Array, V: int, source: str) -> None:
    if skeleton not in SKELETONS:
        raise InputError(f"{source} is for {skeleton!r}; known are {', '.join(SKELETONS)}")
    expected = (len(SKELETONS[skeleton]), V)
    if array.shape != expected:
        raise InputError(f"{source} is {array.shape}; expected {expected} for {skeleton}")
    if not np.abs(array.sum(1) - 1).max() < 0.05:
        raise InputError(f"{source}: rows sum to {array.sum(1).min():.4g} or so; expected 1")


def _swapped_pairs(body: Body, skeleton: str, array: Array) -> list[str]:
    """Left joints that lie to the right of their partner; nothing where the body itself gives no
    side (its own left and right joints are not apart)."""
    own = SKELETONS["smpl24"]
    rest = body.regressors.get("smpl24", np.zeros((len(own), len(body.v_template))))
    if not all(gap > _MIRRORED_M for gap in _side_gaps(rest, body.v_template, own.flip)):
        return []
    known = SKELETONS[skeleton]
    gaps = _side_gaps(array, body.v_template, known.flip)
    return [
        known.joints[left]
        for (left, _), gap in zip(known.flip, gaps, strict=True)
        if gap < -_MIRRORED_M
    ]


def _side_gaps(
    regressor: Array, vertices: Array, pairs: tuple[tuple[int, int], ...]
) -> list[float]:
    """By how many metres each pair's left joint lies further left than its right one."""
    x = regressor @ vertices[:, 0]
    return [float(x[left] - x[right]) for left, right in pairs]


def _follows_exactly(source: str, target: str) -> bool:
    if target not in SKELETONS or get_skeleton(source).family != get_skeleton(target).family:
        return False
    try:
        return get_conversion(source, target).exact
    except ValueError:
        return False
