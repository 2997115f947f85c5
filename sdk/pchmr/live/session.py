"""A live session: one thread captures, one infers, one records, and the caller's own displays."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter_ns
from typing import Any

from pchmr_engines.errors import InputError

from ..closing import Closing
from ..delay import Delay
from ..people import Person
from ..pipeline import Pipeline
from ..readers import Frame
from ..runner import Outputs
from ..sources import Source
from .handover import Newest
from .recorder import Recorder
from .result import Result, Status
from .timing import RECENT, FrameTiming, TimingLog
from .topologies import Topologies
from .viewer import Action, View, Viewer

POLL_S = 0.05
"""How long the display waits for a result before it looks at the controls again."""
READOUT_NS = 500_000_000
"""Between two read-outs of the latency."""

Begun = tuple[Frame, int]
"""A frame, and when the pipeline took it."""


class LiveSession(Closing):
    """Runs the frames of a source through the current pipeline, in a thread of its own.

        with open_live(0) as source, Topologies("open") as topologies:
            with LiveSession(source, topologies) as session:
                session.run(viewer)

    `results` holds the newest result only: whoever shows it may be as slow as they like. Its
    methods and attributes are for one thread, that of the display; `run` uses them.
    """

    def __init__(
        self,
        source: Source,
        topologies: Topologies,
        *,
        recordings: Iterator[Outputs] | None = None,
        record: bool = False,
        frames: int | None = None,
    ) -> None:
        """recordings: where to write one after another. record: begin at once. frames: end after
        so many.

        Raises:
            InputError: the place of the recording cannot be written to.
        """
        self.source, self.topologies = source, topologies
        self.results: Newest[Result] = Newest()
        self.log = TimingLog()
        self.written: list[Outputs] = []
        self.paused = False
        self._recordings, self._limit = recordings, frames
        self._recorder: Recorder | None = None
        self._recording = threading.Lock()
        self._missed = 0
        self._error: BaseException | None = None
        self._summary: dict[str, Any] = self.log.summary()
        self._next_summary_ns = 0
        self._thread = threading.Thread(target=self._work, name="pchmr-infer", daemon=True)
        if record:
            self.toggle_recording()

    # For the display

    def run(self, viewer: Viewer, seconds: float | None = None) -> None:
        """Show results and obey the controls until the input ends, `seconds` have gone since the
        first result, or the user quits.

        Raises:
            InputError: the camera or stream was lost for good. PchmrError: what else went wrong.
        """
        self.start()
        shown: Result | None = None
        calibrated, end_ns = True, None
        while end_ns is None or perf_counter_ns() < end_ns:
            for action in viewer.poll():
                if action is Action.QUIT:
                    return
                if action is Action.CALIBRATION:
                    calibrated = not calibrated
                self._obey(action)
            ended = self.ended  # asked first: the last result may come while this one waits
            result = self.results.take(POLL_S)
            if result is None and ended:
                break
            if shown is None and result is not None and seconds:
                end_ns = result.timing.done_ns + round(seconds * 1e9)
            shown = result or shown
            if shown is None:
                continue
            viewer.show(View(shown, self.status(), calibrated))
            if result is not None and viewer.draws:
                self.log.add_shown(replace(result.timing, shown_ns=perf_counter_ns()))
        self.check()

    def start(self) -> None:
        """Begin to capture and infer."""
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether no further result will come."""
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raises: what ended the session, if it was an error."""
        self._check_thread()
        if self.ended and self.source.incomplete:
            mend = "check cable, power and network" if self.source.live else "copy it again"
            raise InputError(f"the {self.source.kind} {self.source.incomplete}: {mend}")

    def status(self) -> Status:
        """How it stands now; the latency is taken anew twice a second."""
        now = perf_counter_ns()
        if now >= self._next_summary_ns:
            self._summary, self._next_summary_ns = self.log.summary(RECENT), now + READOUT_NS
        recorder = self._recorder
        return Status(
            topology=self.topologies.current.topology,
            loading=self.topologies.loading,
            paused=self.paused,
            trouble=self.source.trouble or self.topologies.trouble,
            recording=recorder.outputs.overlay if recorder else None,
            dropped=self.source.dropped,
            missed=self.missed,
            timing=self._summary,
        )

    @property
    def missed(self) -> int:
        """Results that were not recorded for want of time."""
        return self._missed + (self._recorder.missed if self._recorder else 0)

    def toggle_recording(self) -> None:
        """Begin a recording, or end the one that runs and finish its files, which are then in
        `written`. Raises: what went wrong with them."""
        if self._recorder is not None:
            with self._recording:
                recorder, self._recorder = self._recorder, None
            try:
                recorder.close()
            finally:
                self._missed += recorder.missed
                self.written += [recorder.outputs] if recorder.whole else []
        elif self._recordings is not None:
            pipeline, wait = self.topologies.current, not self.source.latest
            recorder = Recorder(
                next(self._recordings),
                pipeline.body.faces,
                self.source,
                wait=wait,
                bundle=pipeline.bundle,
            )
            with self._recording:
                self._recorder = recorder

    def close(self) -> None:
        """End capture and inference, and finish the recording. Raises: what went wrong in them and
        nobody was told yet."""
        self.source.close()
        try:
            if self._thread.ident:
                self._thread.join()
        finally:
            if self._recorder is not None:
                self.toggle_recording()
        self._check_thread()

    def _check_thread(self) -> None:
        """Raises: the error that ended the thread, once."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _obey(self, action: Action) -> None:
        if action is Action.PAUSE:
            self.paused = not self.paused
        elif action is Action.RECORD:
            self.toggle_recording()
        elif action is Action.TOPOLOGY:
            other = "parallel" if self.topologies.current.topology == "serial" else "serial"
            if other in self.topologies.names:
                self.topologies.ask(other)

    # In the thread of its own

    def _work(self) -> None:
        try:
            self._infer_all()
        except BaseException as error:
            self._error = error

    def _infer_all(self) -> None:
        """Every frame that comes. After a pause or a cut people are found anew; another topology
        goes on with those who are there."""
        pipeline, begun, stale = self.topologies.current, 0, False
        delay = Delay[Begun](pipeline)
        for frame in self.source:
            if self.paused:
                stale = True
                continue
            current = self.topologies.current
            if current is not pipeline:
                self._deliver(pipeline.topology, delay.flush())
                current.take_over(pipeline)
                pipeline, delay = current, Delay(current)
            if stale or frame.cut:
                self._finish(pipeline, delay)
                stale = False
            done = delay((frame, perf_counter_ns()), frame.image, frame.t_ns)
            self._deliver(pipeline.topology, done)
            begun += 1
            if begun == self._limit:
                break
        self._finish(pipeline, delay)

    def _finish(self, pipeline: Pipeline, delay: Delay[Begun]) -> None:
        """What the pipeline still owes; afterwards it has forgotten whom it followed."""
        self._deliver(pipeline.topology, delay.flush())
        pipeline.reset()

    def _deliver(self, topology: str, done: Sequence[tuple[Begun, Sequence[Person]]]) -> None:
        """Results of the frames that are done: with a temporal network not always of one."""
        done_ns = perf_counter_ns()
        for (frame, started_ns), people in done:
            timing = FrameTiming(frame.captured_ns, frame.received_ns, started_ns, done_ns)
            self.log.add(timing, bool(people))
            result = Result(frame, people, timing, topology)
            self.results.put(result)
            with self._recording:
                if self._recorder is not None:
                    self._recorder.add(result)
