"""Several robots in one control loop: one clock, one run of the policy per tick, positions shared among all.

Every robot has its own `Loop` with guard, supervisor, phases and sink; this one gives them their ticks. What befalls
one robot is that robot's fault. The others fly on, or land as well.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from controllers.crew import Crew, Question
from controllers.flight import Phase
from controllers.latency import Durations
from controllers.loop import Asked, Loop
from controllers.neighbourhood import Dropouts, Neighbourhood
from controllers.pace import Pace
from controllers.policy import Decision
from controllers.realtime import no_garbage_collection
from hardware.clock import Clock
from hardware.errors import LinkLost, RoboError
from hardware.robot import RobotState

OnFault = Literal["one", "all"]
Feed = Callable[[], Mapping[int, tuple[int, NDArray[np.float64]]]]
"""Positions by robot: instant on the loop's clock, (3,) m in the world."""


class Swarm:
    """Runs one policy on N robots, once. `finish`, `estop` and the loops' own may be called from any thread."""

    def __init__(
        self,
        loops: Sequence[Loop],
        crew: Crew | None,
        neighbourhood: Neighbourhood,
        clock: Clock,
        *,
        on_fault: OnFault = "one",
        feed: Feed | None = None,
        dropouts: Dropouts | None = None,
    ) -> None:
        """`crew` decides for loops whose policies are its members; None: each loop's law decides for itself.

        Positions come from `feed`, or from the robots' own states; `dropouts` lose some of either.
        """
        self.loops, self.on_fault = list(loops), on_fault
        self.failures = [""] * len(loops)
        """Why a robot could not begin, or what not even its own loop could deal with."""
        self.separation_m: NDArray[np.float64] = np.full(len(loops), np.inf)
        """(N,) least distance of each robot from another while both were off the ground."""
        self.work = Durations()
        """Time that a tick of all robots took."""
        self._crew, self._neighbourhood, self._clock = crew, neighbourhood, clock
        self._feed, self._dropouts = feed, dropouts
        self._goes_on = [False] * len(loops)
        self._pace = Pace(clock, loops[0].period_ns, lambda: any(loop.called for loop in self.loops))

    def finish(self) -> None:
        """Asks for an orderly end of all."""
        for loop in self.loops:
            loop.finish()

    def estop(self, reason: str) -> None:
        """Asks for the emergency stop of all."""
        for loop in self.loops:
            loop.estop(reason)

    def run(self, between: Callable[[], None] = lambda: None) -> None:
        """From start to rest of all, with a call `between` ticks."""
        self.start()
        with nullcontext() if self._pace.slow else no_garbage_collection():
            while self.step():
                between()

    def start(self) -> None:
        """Starts one robot after the other; one that refuses stays where it is, and the others with it on demand."""
        for i, loop in enumerate(self.loops):
            try:
                loop.start()
                self._goes_on[i] = True
            except RoboError as e:
                self.failures[i] = str(e)
                if self.on_fault == "all":
                    self.finish()
                    break
        if any(self._goes_on):
            first = self.loops[self._goes_on.index(True)].robot
            self._pace.fall_in_step(lambda: first.read().t_ns)

    def step(self) -> bool:
        """Waits for the next deadline and does one tick of each robot; False once all are at rest."""
        missed = self._pace.wait()
        begin_ns = self._clock.now_ns()
        active = [i for i, goes_on in enumerate(self._goes_on) if goes_on]
        for i in active:
            self._goes_on[i] = self._kept(i, lambda loop: loop.look(missed))
        self._share()
        self._decide(active)
        for i in active:
            self.loops[i].tell()
        self._note_separation()
        if self.on_fault == "all" and any(loop.supervisor.faults for loop in self.loops):
            self.finish()
        self.work.add((self._clock.now_ns() - begin_ns) / 1e9)
        return any(self._goes_on)

    def _kept(self, i: int, work: Callable[[Loop], bool]) -> bool:
        """Does a part of a robot's tick; one whose loop has failed for good is left stopped."""
        try:
            return work(self.loops[i])
        except Exception as e:  # noqa: BLE001 - the robot has been stopped; the others must not fall with it
            self.failures[i] = f"{type(e).__name__}: {e}"
            return False

    def _share(self) -> None:
        """Takes in the newest positions; those of robots at rest on the floor count too."""
        shared = self._neighbourhood.shared
        dark = np.zeros(len(self.loops), dtype=np.bool_)
        if self._dropouts is not None:
            dark = self._dropouts.dark(self._clock.now_ns())
        if self._feed is not None:
            for i, (t_ns, position) in self._feed().items():
                if i < len(dark) and not dark[i]:
                    shared.put(i, t_ns, position)
            return
        for i, loop in enumerate(self.loops):
            state = loop.state if self._goes_on[i] else _seen_at_rest(loop)
            if state is not None and not dark[i] and "position_world" in state.signals:
                shared.put(i, state.t_ns, state.signals["position_world"], state.signals.get("velocity_world"))

    def _decide(self, active: Sequence[int]) -> None:
        asked = {i: a for i in active if (a := self.loops[i].asked) is not None}
        if not asked:
            return
        failure: Exception | None = None
        decisions: dict[int, Decision] = {}
        try:
            perceived = self._neighbourhood.perceived({i: a.state for i, a in asked.items()})
            questions = {i: Question(a.state.signals, a.goal, perceived[i]) for i, a in asked.items()}
            if self._crew is not None:
                decisions = self._crew.decide(questions)
            else:
                decisions = {i: self.loops[i].policy.decide(*q) for i, q in questions.items()}
        except Exception as e:  # noqa: BLE001 - becomes a fault of every robot that had asked
            failure = e

        def answer(i: int) -> Callable[[Asked], Decision]:
            def decided(_: Asked) -> Decision:
                if failure is not None:
                    raise failure
                return decisions[i]

            return decided

        for i in asked:
            self._goes_on[i] = self._kept(i, lambda loop, i=i: loop.act(answer(i))) and self._goes_on[i]

    def _note_separation(self) -> None:
        at = {i: p for i, loop in enumerate(self.loops) if (p := _position_in_flight(loop)) is not None}
        if len(at) < 2:
            return
        up, position = list(at), np.stack(list(at.values()))
        apart = np.linalg.norm(position[:, None] - position[None], axis=-1)
        np.fill_diagonal(apart, np.inf)
        self.separation_m[up] = np.minimum(self.separation_m[up], apart.min(axis=1))


def _position_in_flight(loop: Loop) -> NDArray[np.float64] | None:
    flies = loop.airborne and loop.flight.phase not in (Phase.IDLE, Phase.DONE)
    return loop.state.signals["position_world"] if flies and loop.state is not None else None


def _seen_at_rest(loop: Loop) -> RobotState | None:
    """A robot that has landed is still in the way."""
    try:
        return loop.robot.read()
    except LinkLost:
        return None
