"""Official checkpoints, read safely, into our networks.

checkpoint = load_checkpoint("model_checkpoint.pt")
checkpoint.network(image), checkpoint.spec.input
"""

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pchmr_engines.errors import InputError

from .networks import NETWORKS, NetworkSpec, get_network
from .tf_bundle import bundle_prefix, read_bundle

State = dict[str, Tensor]

# Where files keep their weights, the most telling name first.
WRAPPERS = (
    *("model_pos", "gen_state_dict", "model_state_dict", "best_state_dict", "state_dict"),
    *("network", "model", "model_traj"),
)
OPTIMISER_SLOTS = ("Adam", "Adam_1", "Momentum", "RMSProp", "ExponentialMovingAverage")
COUNTER = "num_batches_tracked"  # torch before 0.4.1 did not write it


class _Unused:
    """Stands in for something in a file that nobody needs, whatever it was made from."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# What official files hold besides tensors: a numpy scalar (SemGCN's error), a RandomState
# (VideoPose3D's snapshots), a yacs config (HMR2). None of their own code runs.
_STAND_INS = [
    *(
        (_Unused, f"numpy.{name}")
        for name in (
            *("core.multiarray.scalar", "core.multiarray._reconstruct", "dtype", "ndarray"),
            *("_core.multiarray.scalar", "_core.multiarray._reconstruct"),
            *("random.__RandomState_ctor", "random._pickle.__randomstate_ctor"),
            *("random._pickle.__bit_generator_ctor", "random._mt19937.MT19937"),
            "random.bit_generator.__pyx_unpickle_SeedSequence",
        )
    ),
    (OrderedDict, "yacs.config.CfgNode"),
]


@dataclass(frozen=True)
class Checkpoint:
    """A network with the weights of a file, in evaluation mode, and what is known of it.

    container: where in the file the weights lay, such as `model_pos` or `TensorFlow bundle`.
    """

    spec: NetworkSpec
    network: nn.Module
    container: str


def load_checkpoint(path: str | Path, network: str | None = None) -> Checkpoint:
    """The network of a file, with its weights. No code in the file runs.

    network: a name of `NETWORKS`; needed only where several have the same weights, such as one
    network for two image sizes.

    Raises: InputError for a file that is missing, cut, no checkpoint, asks for code to be run, has
    values that are not finite, or whose keys are not those of the network.
    """
    path = Path(path)
    spec = get_network(network) if network is not None else None
    states = dict(_states(path, spec))
    if not states:
        raise InputError(f"{path} holds no weights: expected one of {', '.join(WRAPPERS)}")
    if spec is None:
        container, spec = _recognise(path, states)
    else:
        container = next(iter(states))
    state = _own_part(states[container], spec)
    if differences := _differences(spec, state):
        raise InputError(f"{path} is not {spec.name}{_but_looks_like(spec, state)}. {differences}")
    _check_finite(path, state)
    counters = {
        key: torch.zeros((), dtype=torch.int64) for key in spec.shapes.keys() - state.keys()
    }
    weights = {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }
    return Checkpoint(spec, spec.with_weights(weights | counters), container)


def _states(path: Path, spec: NetworkSpec | None) -> Iterator[tuple[str, State]]:
    """Container -> weights, every place of the file that has some, the likeliest first."""
    prefix = bundle_prefix(path)
    if prefix is not None:
        bundle = read_bundle(prefix)
        yield "TensorFlow bundle", {name: torch.from_numpy(value) for name, value in bundle.items()}
        return
    content = _read(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a dict of weights")
    for wrapper in dict.fromkeys((*(spec.wrappers if spec else ()), *WRAPPERS)):
        inner = content.get(wrapper)
        if isinstance(inner, Mapping) and (state := _tensors(inner)):
            yield wrapper, state
    if state := _tensors(content):
        yield "bare", state


def _tensors(content: Mapping[str, Any]) -> State:
    """The tensors of a dict, their keys without the prefix that parallel training leaves."""
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if state and all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _read(path: Path) -> Any:
    """The content of a file of torch.save, with nothing in it run."""
    if path.is_dir():
        raise InputError(
            f"{path} is a folder; expected a file, or the prefix of a TensorFlow bundle"
        )
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith(b"<"):
        raise InputError(
            f"{path} is a web page, not a checkpoint: the download was refused or asked something; "
            "open the link in a browser and save the file it offers"
        )
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a pointer of git-lfs, not a checkpoint: run  git lfs pull")
    try:
        # Bytes in the strings of Python 2 are no text; torch takes the encoding, yet warns of it.
        with torch.serialization.safe_globals(list(_STAND_INS)), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, encoding="latin1")
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {_why_refused(str(error))}") from error
    except Exception as error:  # torch raises whatever its readers meet in damaged bytes
        raise InputError(
            f"{path} is cut short or not a checkpoint of torch.save: copy or download it again "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]})"
        ) from error


def _why_refused(message: str) -> str:
    found = re.search(r"GLOBAL (\S+)", message)
    if "Unsupported operand" in message:
        return "it is a plain pickle, which can run code, and was not opened: expected torch.save's"
    if found is None:
        return "it is cut short or not a checkpoint of torch.save: copy or download it again"
    return (
        f"it asks to run {found[1]}, which no official checkpoint needs; nothing of it was run. "
        "Get the file from its authors, or save its weights alone as a state_dict"
    )


def _recognise(path: Path, states: Mapping[str, State]) -> tuple[str, NetworkSpec]:
    """Where the weights lie and whose they are, from keys and shapes alone."""
    for container, state in states.items():
        found = [
            spec
            for spec in NETWORKS.values()
            if spec.form_of is None and not _differences(spec, _own_part(state, spec))
        ]
        if len(found) > 1:
            names = " or ".join(spec.name for spec in found)
            raise InputError(
                f"{path} may be {names}, which have the same keys: say which with network=NAME"
            )
        if found:
            return container, found[0]
    state = next(iter(states.values()))
    nearest, share = _nearest(state)
    if share < 0.01:
        raise InputError(
            f"{path} is no network we know nor like one: its {len(state)} keys are "
            f"{', '.join(list(state)[:4])}{', ...' if len(state) > 4 else ''}"
        )
    raise InputError(
        f"{path} is no network we know; nearest is {nearest.name}, with {share:.0%} the same keys. "
        f"{_differences(nearest, _own_part(state, nearest))}"
    )


def _own_part(state: State, spec: NetworkSpec) -> State:
    """What of a file's weights belongs to the network itself."""
    if spec.prefix and any(key.startswith(spec.prefix) for key in state):
        state = {
            key.removeprefix(spec.prefix): value
            for key, value in state.items()
            if key.startswith(spec.prefix)
        }
    return {
        key: value
        for key, value in state.items()
        if not key.startswith(spec.ignore)
        and not (spec.tensorflow and key.rpartition("/")[2] in OPTIMISER_SLOTS)
    }


def _differences(spec: NetworkSpec, state: State) -> str:
    """The keys that are missing, unexpected or of a wrong shape, as a sentence; else empty."""
    kinds = {
        "missing": [key for key in spec.shapes if key not in state and not key.endswith(COUNTER)],
        "unexpected": [key for key in state if key not in spec.shapes],
        "of a wrong shape": [
            f"{key} {tuple(state[key].shape)} instead of {shape}"
            for key, shape in spec.shapes.items()
            if key in state and tuple(state[key].shape) != shape
        ],
    }
    listed = (
        f"{len(keys)} {kind}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}"
        for kind, keys in kinds.items()
        if keys
    )
    sentence = "; ".join(listed)
    return f"Keys {sentence}" if sentence else ""


def _nearest(state: State) -> tuple[NetworkSpec, float]:
    """The network most like a file's weights, and the share of keys and shapes in common."""

    def likeness(spec: NetworkSpec) -> float:
        own = _own_part(state, spec)
        same = sum(spec.shapes.get(key) == tuple(value.shape) for key, value in own.items())
        return same / len(own.keys() | spec.shapes.keys())

    nearest = max(NETWORKS.values(), key=likeness)
    return nearest, likeness(nearest)


def _but_looks_like(spec: NetworkSpec, state: State) -> str:
    nearest, share = _nearest(state)
    if nearest.name == spec.name or share < 0.5:
        return ""
    return f" but looks like {nearest.name}, with {share:.0%} the same keys"


def _check_finite(path: Path, state: State) -> None:
    spoilt = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if spoilt:
        raise InputError(
            f"{path}: {len(spoilt)} of {len(state)} weights hold values that are not finite, "
            f"first {spoilt[0]}: training diverged or the file is damaged"
        )
