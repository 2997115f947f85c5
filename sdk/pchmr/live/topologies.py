"""The pipelines of one bundle, so that the topology can change while frames come."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Engine
from pchmr_engines.errors import PchmrError

from ..closing import Closing
from ..pipeline import Pipeline


@dataclass(frozen=True)
class SharingBundle(Bundle):
    """A bundle whose pipelines share their engines: the same question gets the same engine."""

    _engines: dict[tuple[Any, ...], Engine] = field(default_factory=dict, compare=False)

    def engine(
        self,
        name: str,
        backend: str = "auto",
        threads: int | None = None,
        precision: str | None = None,
    ) -> Engine:
        key = (name, backend, threads, precision)
        if key not in self._engines:
            self._engines[key] = super().engine(name, backend, threads, precision)
        return self._engines[key]


class Topologies(Closing):
    """One pipeline a topology, each loaded when it is first asked for, in a thread of its own.

        topologies = Topologies("open", "parallel", max_people=2)
        topologies.ask("serial")
        topologies.current          # parallel still; serial as soon as it is loaded

    They share the bundle and its engines. `ask` is for one thread, `current` for any.
    """

    def __init__(
        self, bundle: str | Bundle = "open", first: str = "parallel", **options: Any
    ) -> None:
        """options: as in `Pipeline`. Raises: what `Pipeline.load` raises."""
        loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        self._bundle = SharingBundle(loaded.root, loaded.manifest, loaded.trust)
        self._options = options
        self._pipelines = {first: Pipeline.load(self._bundle, first, **options)}
        self._loading: threading.Thread | None = None
        self.current = self._pipelines[first]
        self.trouble = ""
        self._wanted = first

    @property
    def names(self) -> tuple[str, ...]:
        """What the bundle has."""
        return tuple(self._bundle.manifest.topologies)

    @property
    def loading(self) -> str:
        """The topology that is being loaded; empty for none."""
        return self._wanted if self._wanted != self.current.topology else ""

    def ask(self, name: str) -> None:
        """Change to `name` once its pipeline is there; ignored while another is being loaded.

        Where it cannot be loaded, the current one stays, and `trouble` says why.
        """
        if self.loading or name == self.current.topology:
            return
        self._wanted, self.trouble = name, ""
        if name in self._pipelines:
            self.current = self._pipelines[name]
            return
        self._loading = threading.Thread(target=self._load, args=(name,), name="pchmr-load")
        self._loading.start()

    def _load(self, name: str) -> None:
        try:
            pipeline = Pipeline.load(self._bundle, name, **self._options)
        except Exception as error:
            self.trouble = f"{name} cannot be loaded: {error}"
            self._wanted = self.current.topology
            if not isinstance(error, PchmrError):
                raise  # a bug shows its traceback
        else:
            self._pipelines[name] = self.current = pipeline

    def close(self) -> None:
        """Close every pipeline, when what is being loaded is there."""
        if self._loading is not None:
            self._loading.join()
        for pipeline in self._pipelines.values():
            pipeline.close()
