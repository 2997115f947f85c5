"""What verbs share: `PipelineOptions`, one definition of every option of a pipeline."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option, echo

from pchmr_engines.errors import InputError

if TYPE_CHECKING:
    from pchmr_engines.bundle import Bundle

DETECTOR_STRIDE = 30
BUNDLE = "open, open-plus, or a bundle's folder or zip."
BundleOption = Annotated[str, Option(metavar="BUNDLE", help=BUNDLE)]
Topology = Annotated[str, Option(metavar="NAME", help="serial, parallel, template or mesh-only.")]
Frames = Annotated[int | None, Option(min=1, metavar="N", help="Stop after so many frames.")]


def source_named(text: str) -> str:
    """What is read for the name of an input: `demo` is the demo video."""
    from ..assets import fetch

    return str(fetch("demo_video")) if text == "demo" else text


def tell(notes: Iterable[str]) -> None:
    """Each on stderr, once; empty ones are none."""
    for note in dict.fromkeys(filter(None, notes)):
        echo(f"note: {note}", err=True)


@dataclass(frozen=True)
class PipelineOptions:
    """What every verb that runs a pipeline takes; `with_pipeline_options` gives it to them."""

    people: Annotated[
        int, Option(min=1, metavar="N", help="How many people to follow at most.")
    ] = 1
    no_smooth: Annotated[
        bool, Option("--no-smooth", help="No smoothing over time, nor left and right put back.")
    ] = False
    detector: Annotated[
        Path | None, Option(metavar="FILE", help="A person detector in ONNX, not the bundle's.")
    ] = None
    detector_format: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="What it gives: yolox (the default), yolox-decoded, rtmdet, yolov8, yolov10.",
        ),
    ] = None
    detector_stride: Annotated[
        int | None,
        Option(
            min=1,
            metavar="N",
            help=f"Frames between looks for further people; else {DETECTOR_STRIDE}.",
        ),
    ] = None
    camera_file: Annotated[
        Path | None, Option(metavar="FILE", help="JSON: fx, fy, cx, cy (px) and distortion.")
    ] = None
    focal: Annotated[
        float | None, Option(metavar="PX", help="Focal length; by default the frame's diagonal.")
    ] = None
    center: Annotated[
        str | None, Option(metavar="X,Y", help="Principal point, px; by default the middle.")
    ] = None
    distortion: Annotated[
        str | None, Option(metavar="K1,K2,P1,P2[,...]", help="Of the lens, as OpenCV has it.")
    ] = None
    backend: Annotated[
        str,
        Option(
            metavar="NAME",
            help="auto, which measures once and remembers; onnxruntime, openvino; on cuda "
            "onnxruntime-cuda, tensorrt ...",
        ),
    ] = "auto"
    device: Annotated[
        str,
        Option(metavar="NAME", help="cpu, or cuda: an NVIDIA GPU, where nothing is smoothed."),
    ] = "cpu"
    precision: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="fp16, int8 ... of the stages that have it; each one's first by default.",
        ),
    ] = None
    threads: Annotated[
        int | None,
        Option(min=1, metavar="N", help="CPU threads of the large networks; all by default."),
    ] = None
    trust: Annotated[bool, Option("--trust", help="Allow stages in formats that can run code.")] = (
        False
    )

    def load(self, bundle: str) -> Bundle:
        """A bundle with the precision asked for, trusted as far as it is. Raises: BundleError."""
        from pchmr_engines.bundle import Bundle

        loaded = Bundle.load(bundle, self.trust)
        return loaded.preferring(self.precision) if self.precision else loaded

    def keywords(self, moving: bool = True) -> dict[str, Any]:
        """Keywords of `Pipeline`. moving: whether there is anything to smooth over time.

        Raises: InputError for options of which one would have no effect.
        """
        from ..lens import read_lens

        if self.detector_format and not self.detector:
            raise InputError("--detector-format is of --detector FILE: give both, or neither")
        if self.device == "cuda" and self.threads:
            raise InputError("--threads is of --device cpu: leave one of them out")
        return {
            "max_people": self.people,
            "smooth": moving and not self.no_smooth and self.device != "cuda",
            "detector": self.detector,
            "detector_format": self.detector_format or "yolox",
            "detector_stride": self.detector_stride or DETECTOR_STRIDE,
            "camera": read_lens(self.camera_file, self.focal, self.center, self.distortion),
            "backend": self.backend,
            "device": self.device,
            "threads": self.threads,
        }

    def notes(self, moving: bool = True) -> list[str]:
        """What is otherwise than a user would expect."""
        if moving:
            off = self.device == "cuda" and not self.no_smooth
            return ["nothing is smoothed over time on device cuda"] if off else []
        given = {"--no-smooth": self.no_smooth, "--detector-stride": self.detector_stride}
        return [f"{name} changes nothing: photos stand alone" for name, on in given.items() if on]


def with_pipeline_options(**defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a verb an option for each field of `PipelineOptions`, in place of its `options`.

    defaults: of this verb, where they differ.
    """
    shared = {
        name: parameter.replace(default=defaults.get(name, parameter.default))
        for name, parameter in inspect.signature(PipelineOptions, eval_str=True).parameters.items()
    }

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        def called(**given: Any) -> None:
            options = PipelineOptions(**{name: given.pop(name) for name in shared})
            verb(options=options, **given)

        own = inspect.signature(verb, eval_str=True)
        parameters = {**own.parameters, **shared}
        del parameters["options"]
        keyword = [x.replace(kind=inspect.Parameter.KEYWORD_ONLY) for x in parameters.values()]
        called.__signature__ = own.replace(parameters=keyword)  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in keyword}
        called.__name__, called.__doc__ = verb.__name__, verb.__doc__
        return called

    return decorate
