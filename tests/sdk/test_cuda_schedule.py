"""Which stream, which waits: derived from needs and gives, proven by a recorder that fails on each
fault that is planted here."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from cuda_recorder import Fault, Recorder

from pchmr.cuda.device import Buffer, Launch, pack
from pchmr.cuda.plan import Plan
from pchmr.cuda.schedule import BEGIN, Placed, Schedule, Step, dependencies, schedule

FORM = ((4,), "float32")


def step(name: str, needs: str = "", gives: str = "", cost: float = 1.0) -> Step:
    """A step that adds up what it needs, and 1, into what it gives."""

    def make(device: object, buffers: dict[str, Buffer], stream: object) -> Callable[[], None]:
        def run() -> None:
            total = 1 + sum(buffers[n].array.array for n in needs.split())
            for given in gives.split():
                buffers[given].array.array[:] = total

        return run

    return Step(name, frozenset(needs.split()), dict.fromkeys(gives.split(), FORM), make, cost)


# crop -> (mesh stream beside pose stream) -> calibrate, as the pipeline has them.
FRAME = (
    step("crop", "frame", "image"),
    step("landmarks", "image", "keypoints", 20),
    step("generator", "keypoints", "theta", 15),
    step("body", "theta", "mesh"),
    step("lifter", "keypoints", "joints", 15),
    step("target", "joints mesh", "target"),
    step("calibrate", "mesh target", "calibrated"),
)


def plan(recorder: Recorder, steps: Sequence[Step] = FRAME, streams: int = 2) -> Plan:
    frame = recorder.alloc("frame", FORM)
    results = {"calibrated"} & {name for each in steps for name in each.gives}
    on = [recorder.stream() for _ in range(streams)]
    return Plan(recorder, "frame", steps, {"frame": frame}, results, on)


def reordered(made: Plan, change: Callable[[Placed], Placed], joins: tuple[str, ...] = ()) -> Plan:
    """The same plan with a schedule that was tampered with."""
    placed = tuple(map(change, made.schedule.placed))
    made.schedule = Schedule(placed, joins)
    made.work = [(p, launch) for p, (_, launch) in zip(placed, made.work, strict=True)]
    for name in made.schedule.awaited:
        made._events.setdefault(name, made._device.event())
    return made


def test_the_branches_run_on_a_stream_each() -> None:
    found = {p.step.name: p for p in schedule(FRAME).placed}
    assert found["generator"].stream != found["lifter"].stream
    assert [found[name].stream for name in ("crop", "landmarks", "calibrate")] == [0, 0, 0]
    assert sum(len(p.waits) for p in found.values()) == 2  # one fork, one join
    assert schedule(FRAME).joins == ()


def test_a_chain_needs_no_other_stream() -> None:
    chain = [step(f"{i}", f"a{i}", f"a{i + 1}") for i in range(5)]
    found = schedule(chain)
    assert {(p.stream, p.waits) for p in found.placed} == {(0, ())}
    assert found.awaited == set()


def test_a_branch_that_nobody_needs_joins_last() -> None:
    found = schedule([*FRAME, step("skin", "theta", "vertices", 30)])
    assert found.joins
    assert found.joins == (next(p.step.name for p in found.placed[::-1] if p.stream == 1),)


def test_branches_from_the_very_first_fork_at_the_begin() -> None:
    found = schedule([step("left", "frame", "a"), step("right", "frame", "b")])
    assert [(p.stream, p.waits) for p in found.placed] == [(0, ()), (1, (BEGIN,))]
    assert found.joins == ("right",)


def test_who_reads_goes_before_who_writes_again() -> None:
    steps = [
        step("region", "next", "now"),
        step("network", "now", "seen"),
        step("n", "seen", "next"),
    ]
    steps.append(step("again", "now", "now"))
    assert dependencies(steps) == {
        "region": set(),
        "network": {"region"},
        "n": {"region", "network"},
        "again": {"region", "network"},
    }


@pytest.mark.parametrize("seed", range(40))
def test_any_steps_are_free_of_races_and_give_what_they_give_alone(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"b{i}" for i in range(8)]
    steps = []
    for i in range(rng.randint(1, 14)):
        needs = {"frame", *rng.sample(names, rng.randint(0, 3))}
        gives = rng.sample(names, rng.randint(1, 2))
        steps.append(step(f"s{i}", " ".join(sorted(needs)), " ".join(gives), rng.random()))
    steps = [*(step(f"fill {n}", "frame", n) for n in names), *steps]

    def values(streams: int, graph: bool) -> list[np.ndarray]:
        recorder = Recorder(seed)
        made = plan(recorder, steps, streams)
        made.warm_up()
        if graph:
            made.capture()
        for _ in range(3):  # one frame after the other does not race either
            made.run()
        return [made.buffers[name].array.array for name in names]

    alone = values(1, graph=False)
    for streams in (2, 3):
        np.testing.assert_array_equal(values(streams, graph=False), alone)
        np.testing.assert_array_equal(values(streams, graph=True), alone)


# Each fault, planted


def test_a_missing_wait_is_a_race() -> None:
    """Every single wait of the frame's, in turn."""
    waits = [(p.step.name, name) for p in schedule(FRAME).placed for name in p.waits]
    assert waits
    for where, what in waits:
        made = plan(Recorder())
        reordered(
            made,
            lambda p, where=where, what=what: replace(
                p, waits=tuple(x for x in p.waits if (p.step.name, x) != (where, what))
            ),
        )
        with pytest.raises(Fault, match="race"):
            made.warm_up()


def test_a_missing_wait_is_found_in_a_graph_too() -> None:
    recorder = Recorder()
    made = plan(recorder)
    made.warm_up()
    target = next(p for p in made.schedule.placed if p.step.name == "target")
    assert len(target.waits) == 1
    # Waiting for something else of that stream's, so that the branch joins after all.
    reordered(
        made,
        lambda p: replace(p, waits=()) if p.step.name == "target" else p,
        joins=target.waits,
    )
    made.capture()
    with pytest.raises(Fault, match="race"):
        made.run()


def test_a_branch_that_does_not_join() -> None:
    recorder = Recorder()
    made = plan(recorder, [*FRAME, step("skin", "theta", "vertices", 30)])
    made.warm_up()
    reordered(made, lambda p: p)
    with pytest.raises(Fault, match="is on a branch that does not join its graph"):
        made.capture()


def test_a_stream_that_does_not_fork_is_not_captured() -> None:
    recorder = Recorder()
    made = plan(recorder, [step("left", "frame", "a"), step("right", "frame", "b")])
    made.warm_up()
    reordered(made, lambda p: replace(p, waits=()), joins=("right",))
    with pytest.raises(Fault, match="waits for an event from before"):
        made.capture()


def test_memory_after_freeze() -> None:
    recorder = Recorder()
    recorder.freeze()
    with pytest.raises(Fault, match="more is allocated after freeze"):
        recorder.alloc("more", FORM)


def test_a_binding_after_freeze() -> None:
    recorder = Recorder()
    buffer = recorder.alloc("image", FORM)
    recorder.freeze()
    with pytest.raises(Fault, match="image is bound to image after freeze"):
        recorder.bind(None, "image", buffer)


def test_waiting_for_a_stream_while_it_is_captured() -> None:
    recorder = Recorder()
    stream = recorder.stream()
    with pytest.raises(Fault, match="waited for while it is captured"):
        recorder.capture(stream, lambda: recorder.synchronize(stream), False)


def test_a_step_that_reads_or_writes_what_it_does_not_say() -> None:
    recorder = Recorder(poison=True)
    a, b = (recorder.alloc(name, FORM) for name in "ab")
    stream = recorder.stream()

    def add() -> None:
        b.array.array[:] = a.array.array + 1

    recorder.launch(stream, Launch("honest", frozenset({a}), frozenset({b}), add))
    assert (b.array.array == 1).all()
    recorder.launch(stream, Launch("reads", frozenset(), frozenset({b}), add))
    assert np.isnan(b.array.array).all()  # what it made of poison
    with pytest.raises(Fault, match="writes writes b, of which it says nothing"):
        recorder.launch(stream, Launch("writes", frozenset({a}), frozenset(), add))
    b.array.array[:] = 0
    with pytest.raises(Fault, match="lies writes b, which it only reads"):
        recorder.launch(stream, Launch("lies", frozenset({a, b}), frozenset(), add))


def test_parts_of_an_arena_start_where_engines_want_them() -> None:
    recorder = Recorder()
    forms = {"a": ((3,), "float64"), "b": ((2, 5), "float32"), "c": ((0, 4), "float64")}
    arena = pack(recorder, "results", forms)
    assert [offset % 256 for offset in arena.offsets.values()] == [0, 0, 0]
    for number, part in enumerate(arena.parts.values()):
        part.array.array[:] = number + 1
    found = arena.split(recorder.download(arena, recorder.stream()))
    assert {name: (array.shape, array.dtype.name) for name, array in found.items()} == forms
    assert [array.max(initial=0) for array in found.values()] == [1, 2, 0]


def test_frames_of_one_plan_do_not_race_with_what_goes_up_between() -> None:
    recorder = Recorder()
    made = plan(recorder)
    made.warm_up()
    made.capture()
    recorder.freeze()
    for value in (1.0, 5.0):
        recorder.upload(made.buffers["frame"], np.full(4, value, np.float32), made._streams[0])
        assert made.run()["calibrated"][0] == 13 + 3 * value
    with pytest.raises(Fault, match="race"):  # from another stream it would
        recorder.upload(made.buffers["frame"], np.zeros(4, np.float32), made._streams[1])
