"""Parity fixtures: what the original networks gave on name-seeded weights, and how far we are off.

The parity kit (fact sheets, key lists, fixtures) is not part of the project; it is found at
`$PCHMR_PARITY`, or at `../shared/networks` beside a checkout.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from pchmr.prepost import verify_prepost
from pchmr_engines.errors import InputError

from . import NETWORKS, NetworkSpec
from .seeding import seeded_input, seeded_state
from .synthetic_body import run_smpl, with_vibe_body

Shapes = Mapping[str, tuple[int, ...]]


def find_parity_kit() -> Path | None:
    """The folder of the parity kit, or None where there is none.

    Raises: InputError where `$PCHMR_PARITY` names no folder.
    """
    named = os.environ.get("PCHMR_PARITY")
    if named and not Path(named).is_dir():
        raise InputError(f"PCHMR_PARITY is {named!r}, which is no folder: name that of the kit")
    folder = Path(named) if named else Path(__file__).parents[4] / "shared" / "networks"
    return folder if folder.is_dir() else None


@dataclass(frozen=True)
class Fixture:
    """One .npz of the kit. meta: what was run; values: output name -> strided expected values."""

    path: Path
    meta: Mapping[str, Any]
    values: Mapping[str, NDArray[np.floating[Any]]]

    @classmethod
    def read(cls, path: Path) -> "Fixture":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values = {name: arrays[name] for name in arrays.files}
            meta = json.loads(str(values.pop("meta")))
            return cls(path, {"inputs": meta["inputs"], "outputs": meta["outputs"], **meta}, values)
        except KeyError as error:
            raise InputError(f"{path} is not a parity fixture: it has no {error}") from error
        except (OSError, ValueError, TypeError, zlib.error, BadZipFile) as error:
            raise InputError(f"{path} is not a parity fixture: {error}") from error

    @cached_property
    def key_list(self) -> Shapes | None:
        """Key -> shape of the original's state, as listed beside the fixture; None without."""
        name = Path(self.meta.get("keys", f"{self.path.stem}.json")).name
        for folder in (self.path.parent.parent / "keys", self.path.parent / "keys"):
            if (folder / name).is_file():
                entries = json.loads((folder / name).read_text(encoding="utf-8"))["entries"]
                skipped = set(self.meta.get("not_seeded", ()))
                return {
                    entry["key"]: tuple(entry["shape"])
                    for entry in entries
                    if entry.get("seeded", True) and entry["key"] not in skipped
                }
        return None

    def find_network(self) -> NetworkSpec:
        """The network it is a fixture of, by its name, else by its list of keys."""
        for name in (
            self.path.stem,
            self.meta.get("name", ""),
            Path(self.meta.get("keys", "")).stem,
        ):
            if name in NETWORKS:
                return NETWORKS[name]
        same = [name for name, spec in NETWORKS.items() if dict(spec.shapes) == self.key_list]
        if not same:
            raise InputError(f"{self.path.name}: no registered network has its name or its keys")
        return NETWORKS[get_close_matches(self.path.stem, same, n=1, cutoff=0)[0]]

    def inputs(self) -> dict[str, NDArray[np.float32]]:
        return {
            name: seeded_input(given["seed"], tuple(given["shape"]), given["kind"])
            for name, given in self.meta["inputs"].items()
        }

    def ratios(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Worst error over tolerance of every output, infinite where it was not computed.

        Compared are the stored values, and the sums over the whole output as a mean error.
        """
        stated = self.meta["outputs"]
        if not stated or not stated.keys() <= self.values.keys():
            raise InputError(
                f"{self.path.name} states {', '.join(stated) or 'no outputs'} and holds "
                f"{', '.join(self.values) or 'no values'}: there is nothing to compare"
            )
        return {
            name: _ratio(np.asarray(outputs[name], np.float64), expected, self.values[name])
            if name in outputs
            else np.inf
            for name, expected in stated.items()
        }


def _ratio(
    got: NDArray[np.float64], expected: Mapping[str, Any], values: NDArray[np.floating[Any]]
) -> float:
    if list(got.shape) != expected["shape"] or not np.isfinite(got).all():
        return np.inf
    errors = np.abs(got.reshape(-1)[:: expected.get("stride", 1)] - values.reshape(-1))
    means = [errors.mean()]
    if "sum" in expected:
        sums = (got.sum() - expected["sum"], np.abs(got).sum() - expected["abs_sum"])
        means += [abs(error) / got.size for error in sums]
    tol = max(expected["tol"], 1e-30)
    return float(max(errors.max() / tol, max(means) / max(expected.get("tol_mean", tol), 1e-30)))


def key_differences(ours: Shapes, theirs: Shapes) -> list[str]:
    """What keeps two lists of keys and shapes from being equal, one line a key."""
    return [
        *(f"missing {key}" for key in theirs.keys() - ours.keys()),
        *(f"unexpected {key}" for key in ours.keys() - theirs.keys()),
        *(
            f"{key} is {ours[key]}, expected {theirs[key]}"
            for key in ours.keys() & theirs.keys()
            if ours[key] != theirs[key]
        ),
    ]


def seeded_network(
    spec: NetworkSpec, scale: Mapping[str, float] | None = None
) -> tuple[torch.nn.Module, dict[str, NDArray[Any]]]:
    """The network with name-seeded weights, in evaluation mode, and those weights."""
    weights = seeded_state(spec.shapes, scale)
    state = {key: torch.from_numpy(value) for key, value in weights.items()}
    return spec.with_weights(state), weights


def verify_fixture(path: Path) -> dict[str, float]:
    """Repeat a fixture, of a network or of pre- and postprocessing; output -> error / tolerance.

    Raises: InputError for a fixture that is unreadable or of nothing we know, whose keys differ
    from ours, or whose weights we seed differently.
    """
    if path.stem.startswith("prepost_"):
        return verify_prepost(path)
    fixture = Fixture.read(path)
    for name, run in RUNNERS.items():
        if path.stem.startswith(name) or fixture.meta.get("name") == name:
            return fixture.ratios(run(fixture))
    spec = fixture.find_network()
    outputs = _run_network(spec, fixture)
    return fixture.ratios(with_vibe_body(outputs) if spec.name == "vibe" else outputs)


def _run_network(spec: NetworkSpec, fixture: Fixture) -> dict[str, NDArray[Any]]:
    keys, name = fixture.key_list, fixture.path.name
    differences = key_differences(spec.shapes, keys) if keys is not None else []
    if differences:
        listed = "; ".join(sorted(differences)[:5])
        raise InputError(f"{name}: {len(differences)} keys of {spec.name} differ: {listed}")
    network, weights = seeded_network(spec, fixture.meta.get("post_scale"))
    if keys is not None:
        _check_weights(fixture, [weights[key] for key in keys])
    (inputs,) = fixture.inputs().values()
    with torch.inference_mode():
        outputs = spec.run(network, torch.from_numpy(inputs))
    return {key: value.numpy() for key, value in outputs.items()}


def _check_weights(fixture: Fixture, values: list[NDArray[Any]]) -> None:
    stated = fixture.meta.get("weights", {}).get("sha256_of_float32_bytes_in_key_order")
    digest = hashlib.sha256()
    for value in values:
        if value.dtype == np.float32:
            digest.update(value.tobytes())
    if stated is not None and stated != digest.hexdigest():
        raise InputError(f"{fixture.path.name}: its weights are seeded by another rule than ours")


# Fixtures that are not of a network: name -> the outputs by our code.
RUNNERS: Mapping[str, Callable[[Fixture], Mapping[str, NDArray[Any]]]] = {
    "smpl": lambda fixture: run_smpl(fixture.inputs()),
}
