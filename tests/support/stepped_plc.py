"""The emulated PLC and the real driver in one process on a stepped clock: registers pass by, no sockets or threads."""

from pathlib import Path

from support.flying import Story

from controllers.artifact import PolicyArtifact
from controllers.flight import FlightPlan
from controllers.loop import Loop
from controllers.policy import Policy
from controllers.supervisor import Supervisor
from hardware.clock import SteppedClock
from hardware.errors import LinkLost
from hardware.guard import GuardedRobot
from hardware.robots.greenhouse_plc.driver import Driver
from hardware.robots.greenhouse_plc.emulator import Compartments
from hardware.robots.greenhouse_plc.plc import SCAN_S
from hardware.robots.greenhouse_plc.wire import Space


class SteppedBus:
    """A Modbus link to compartment 0; plant time follows the clock, at every request."""

    def __init__(self, house: Compartments, clock: SteppedClock) -> None:
        self.house, self._clock, self._start_ns = house, clock, clock.now_ns()
        self.up = False
        self.cut = False
        """The network is gone: requests fail, connections too."""
        self.written: list[tuple[float, Space, int, list[int]]] = []

    def connect(self) -> None:
        self._pass()
        self.up = True
        self._reach()

    def read(self, space: Space, address: int, count: int) -> list[int]:
        self._reach()
        return self.house.plcs[0].read(space, address, count)

    def write(self, space: Space, address: int, values: list[int]) -> None:
        self._reach()
        self.written.append((self.house.now_s, space, address, list(values)))
        self.house.plcs[0].write(space, address, values)

    def close(self) -> None:
        self.up = False

    def _pass(self) -> None:
        now_s = (self._clock.now_ns() - self._start_ns) / 1e9
        while self.house.now_s + SCAN_S <= now_s:
            self.house.scan()

    def _reach(self) -> None:
        self._pass()
        line = self.house.lines[0]
        if self.cut or line.off or line.silent or not self.up:
            self.up = False
            raise LinkLost("test: no answer")


def make_driver(house: Compartments, clock: SteppedClock, *, write: bool = True) -> tuple[Driver, SteppedBus]:
    """A driver, not yet open."""
    bus = SteppedBus(house, clock)
    address = f"modbus://127.0.0.1:1?write={'on' if write else 'off'}"
    return Driver(address, clock=clock, bus=bus, background=False), bus


def make_greenhouse_loop(
    policy: Path, house: Compartments, plan: FlightPlan | None = None, *, write: bool = True, story: Story | None = None
) -> tuple[Loop, SteppedBus, Story, SteppedClock]:
    """A loop ready to start, on an open driver."""
    clock = SteppedClock(1_000_000_000)
    driver, bus = make_driver(house, clock, write=write)
    driver.open()
    story = story or Story()
    artifact = PolicyArtifact.load(policy)
    supervisor = Supervisor(driver.spec, artifact.card.rate_hz)
    supervisor.configure()
    plan = plan or FlightPlan(duration_s=86400.0)
    return Loop(GuardedRobot(driver, clock), Policy(artifact), supervisor, plan, clock, story), bus, story, clock
