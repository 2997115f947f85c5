"""The networks of the paper and its neighbours, by name; official files load key for key."""

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from pchmr_engines.errors import InputError

from . import (
    cpn,
    cpn_tf,
    hmmr_tf,
    hmr2,
    hmr_tf,
    hrnet,
    martinez,
    pose2mesh,
    posenet,
    semgcn,
    spin_hmr,
    vibe,
    videopose3d,
)
from .spec import FeatureInput, ImageInput, KeypointInput, NetworkSpec

__all__ = [
    "NETWORKS",
    "FeatureInput",
    "ImageInput",
    "KeypointInput",
    "NetworkSpec",
    "get_network",
]

_MODULES = (
    *(spin_hmr, hmr_tf, hmmr_tf, vibe, hmr2),
    *(videopose3d, semgcn, martinez, pose2mesh),
    *(cpn, cpn_tf, hrnet, posenet),
)

NETWORKS: Mapping[str, NetworkSpec] = MappingProxyType(
    {spec.name: spec for module in _MODULES for spec in module.SPECS}
)


def get_network(name: str) -> NetworkSpec:
    """The network called `name`. Raises: InputError that names the networks there are."""
    if name not in NETWORKS:
        close = get_close_matches(name, NETWORKS, n=3)
        known = f"did you mean {' or '.join(close)}" if close else f"known: {', '.join(NETWORKS)}"
        raise InputError(f"no network is called {name!r}; {known}")
    return NETWORKS[name]
