"""A client of the emulated Crazyflie that speaks packets to a stepped swarm: no sockets, no threads, no real time."""

import struct
from collections.abc import Callable

import numpy as np

from hardware.robots.crazyflie import wire
from hardware.robots.crazyflie import wire_commands as w
from hardware.robots.crazyflie import wire_localization as wl
from hardware.robots.crazyflie.emulator import EmulatedSwarm
from hardware.robots.crazyflie.supervisor import State
from hardware.robots.crazyflie.wire import Frame, Info, Port, SupervisorCommand


class Client:
    """Talks to drone `index` of a swarm; time passes only in `advance` and `until`."""

    def __init__(self, swarm: EmulatedSwarm, index: int = 0) -> None:
        self.swarm, self.index = swarm, index
        self.received: list[Frame] = []

    @property
    def autopilot(self):
        return self.swarm.autopilot

    @property
    def pilot(self):
        return self.swarm.autopilot.pilots[self.index]

    @property
    def state(self) -> State:
        return self.pilot.supervisor.state

    @property
    def info(self) -> Info:
        return self.swarm.autopilot.info(self.index)

    @property
    def position(self) -> np.ndarray:
        """The true position (3,)."""
        return self.swarm.plant.signals()["position_world"][self.index].copy()

    @property
    def motors(self) -> np.ndarray:
        """The commands to the motors (4,)."""
        return self.swarm.autopilot.motors[:, self.index].copy()

    def send(self, message: object) -> None:
        """Any message of `wire_commands`."""
        if isinstance(message, w.HighLevel):
            frame = w.encode_high_level(message)
        elif isinstance(message, wl.Localization):
            frame = wl.encode_localization(message)
        else:
            frame = w.encode_setpoint(message)  # type: ignore[arg-type]
        self.swarm.receive(self.index, wire.encode(frame))

    def ask(self, port: int, channel: int, data: bytes) -> bytes:
        """The data of the one answer to a request that is answered at once."""
        self.collect()
        self.swarm.receive(self.index, wire.encode(Frame(port, channel, data)))
        frames = self.collect()
        (answer,) = [f for f in frames if (f.port, f.channel) == (port, channel)]
        return answer.data

    def collect(self) -> list[Frame]:
        """Takes the packets that have been sent to us."""
        frames = [wire.decode(d) for i, d in self.swarm.outgoing() if i == self.index]
        self.received += frames
        return frames

    def arm(self, on: bool = True) -> tuple[bool, bool]:
        """(accepted, armed) of an arming request."""
        reply = self.ask(Port.SUPERVISOR, 1, bytes([SupervisorCommand.ARM, on]))
        answer = wire.unpack_supervisor_reply(reply)
        return answer.accepted, answer.state

    def recover(self) -> bool:
        """Whether the drone is no longer crashed after a recovery request."""
        reply = self.ask(Port.SUPERVISOR, 1, bytes([SupervisorCommand.RECOVER]))
        return wire.unpack_supervisor_reply(reply).state

    def set_parameter(self, name: str, value: float) -> float:
        """Writes by name; returns what the drone then reads back."""
        from hardware.robots.crazyflie.parameters import INDEX, PARAMETERS

        t = wire.PARAM_TYPES[PARAMETERS[INDEX[name]].type]
        self.ask(Port.PARAM, 2, struct.pack("<H", INDEX[name]) + wire.pack_value(t, value))
        answer = self.ask(Port.PARAM, 1, struct.pack("<H", INDEX[name]))
        return struct.unpack(t.layout, answer[3:])[0]

    def advance(self, duration_s: float, message: object = None, every_s: float = 0.01) -> None:
        """Lets time pass, streaming `message` meanwhile."""
        steps = round(duration_s / 0.002)
        for n in range(steps):
            if message is not None and n % round(every_s / 0.002) == 0:
                self.send(message)
            self.swarm.tick()

    def until(self, holds: Callable[[], bool], *, within_s: float) -> float:
        """Lets time pass until something holds; returns how long it took. Fails after `within_s`."""
        start = self.swarm.now_s
        while not holds():
            assert self.swarm.now_s - start < within_s, f"{self.state} at {self.position} after {within_s} s"
            self.swarm.tick()
        return self.swarm.now_s - start

    def take_off(self, height: float = 1.0, seconds: float = 1.5) -> None:
        """Arms, climbs, and hovers by the high-level commander."""
        self.advance(0.1)
        assert self.arm() == (True, True)
        self.send(w.Takeoff(height, seconds))
        self.advance(seconds + 0.5)
        assert self.position[2] > 0.8 * height
        assert self.state is State.FLYING
