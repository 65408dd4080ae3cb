"""Emulated greenhouse PLCs behind Modbus TCP: any client connects as to the real thing, one port per compartment.

`Compartments` is the PLCs with their world and faults, stepped by whoever owns them, without sockets or clock: tests
step it at will. `Emulator` serves one with pymodbus in real time, or up to a thousand times faster. Plant time begins
with the first connection.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence

import numpy as np
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from hardware.errors import BadInput
from hardware.plant import Plant
from hardware.robots.greenhouse_plc.faults import Fault, FaultSchedule, parse_fault
from hardware.robots.greenhouse_plc.plant import GreenhousePlant
from hardware.robots.greenhouse_plc.plc import HOLDING_SIZE, INPUT_SIZE, SCAN_S, Plc
from hardware.robots.greenhouse_plc.sensors import SAMPLE_S, Noise
from hardware.robots.greenhouse_plc.wire import ModbusRefusal, Space

DEFAULT_PORT = 15020
UNIT = 1
LARGEST_SCALE = 1000.0
"""Beyond this the watchdog's 120 s would be shorter than a network's hiccup."""
CATCH_UP_S = 60.0
"""A process that was held up for more plant time lets it slip instead of racing after it."""
SPACES: dict[int, Space] = {
    1: "coil",
    2: "discrete",
    3: "holding",
    4: "input",
    5: "coil",
    6: "holding",
    15: "coil",
    16: "holding",
    22: "holding",
    23: "holding",
}
"""Register space of every function code."""


class Line:
    """One PLC's network side; see faults.Link."""

    def __init__(self) -> None:
        self.silent = self.off = False
        self.requests = self.refused = 0


class Compartments:
    """R emulated PLCs and the world behind them; everything random comes from `seed`."""

    def __init__(
        self,
        plant: Plant | None = None,
        *,
        num: int = 1,
        seed: int = 0,
        noise: Noise | None = None,
        faults: Sequence[Fault] = (),
        strict: bool = False,
    ) -> None:
        self.plant: Plant = plant or GreenhousePlant(num, seed=seed)
        self.plcs = [Plc(strict=strict, noise=noise, seed=seed + i) for i in range(self.plant.num_robots)]
        self.lines = [Line() for _ in self.plcs]
        self.now_s = 0.0
        self._schedule = FaultSchedule(faults)
        self._scans = 0
        self._sample()

    def scan(self) -> None:
        """Advances 5 s of plant time; the world moves, and is measured, once a minute."""
        self.now_s += SCAN_S
        self._schedule.turn(self.now_s, zip(self.plcs, self.lines, strict=True))
        for plc, line in zip(self.plcs, self.lines, strict=True):
            if line.off:
                plc.idle()
            else:
                plc.scan()
        self._scans += 1
        if self._scans % round(SAMPLE_S / SCAN_S) == 0:
            self.plant.step(np.stack([plc.drive() for plc in self.plcs]), SAMPLE_S)
            self._sample()

    def advance(self, duration_s: float) -> None:
        """Scans through a duration."""
        for _ in range(round(duration_s / SCAN_S)):
            self.scan()

    def figures(self) -> dict[str, object]:
        """What the emulation came to, per compartment."""
        return {
            "emulated_s": self.now_s,
            "watchdog_trips": [plc.trips for plc in self.plcs],
            "requests": [line.requests for line in self.lines],
            "refused": [line.refused for line in self.lines],
        }

    def _sample(self) -> None:
        truth = self.plant.signals()
        for i, (plc, line) in enumerate(zip(self.plcs, self.lines, strict=True)):
            if not line.off:
                plc.sample({name: np.asarray(value)[i] for name, value in truth.items()})


class Emulator:
    """Serves compartments on consecutive TCP ports of one host; `start` and `stop` run it in a thread."""

    def __init__(
        self,
        compartments: Compartments,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        time_scale: float = 1.0,
    ) -> None:
        if not 0.0 < time_scale <= LARGEST_SCALE:
            raise BadInput(f"time scale {time_scale:g}; expected a number above 0, at most {LARGEST_SCALE:g}")
        self.compartments, self.time_scale, self._host = compartments, time_scale, host
        self.slipped_s = 0.0
        """Plant time given up because this process was held up."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop = asyncio.new_event_loop()
        self._servers: list[ModbusTcpServer | None] = [None] * len(compartments.plcs)
        self._connected = False
        try:
            self.ports = self._loop.run_until_complete(self._bind(port))
        except BaseException:
            self._loop.close()
            raise
        self.addresses = [f"modbus://{host}:{p}?write=on" for p in self.ports]
        """One per compartment; writing is allowed, since nothing but numbers can come to harm."""

    def request_stop(self, linger_s: float = 0.0) -> None:
        """Makes `serve` return soon; safe in a signal handler. A PLC needs nobody to linger: it looks after itself."""
        self._stop.set()

    def start(self) -> None:
        """Serves in a background thread until `stop`."""
        self._thread = threading.Thread(target=self.serve, name="plc-emulator", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops serving and releases the ports; idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._close())
            self._loop.close()

    def serve(self, duration_s: float = float("inf")) -> None:
        """Serves in this thread until `stop`, or for a duration of plant time."""
        self._loop.run_until_complete(self._run(duration_s))

    def figures(self) -> dict[str, object]:
        """What the emulation came to."""
        return self.compartments.figures() | {"slipped_s": self.slipped_s}

    async def _run(self, duration_s: float) -> None:
        house, period = self.compartments, SCAN_S / self.time_scale
        while not self._connected and not self._stop.is_set():
            await asyncio.sleep(0.01)
        deadline = time.monotonic() + period
        while not self._stop.is_set() and house.now_s < duration_s:
            wait = deadline - time.monotonic()
            if -wait * self.time_scale > CATCH_UP_S:
                self.slipped_s -= wait * self.time_scale
                deadline -= wait
            await asyncio.sleep(max(wait, 0.0))  # also while behind: whoever asks is answered between two scans
            if time.monotonic() < deadline:
                continue
            house.scan()
            deadline += period
            await self._switch()

    async def _switch(self) -> None:
        """Power cuts reach the network: connections are gone, and nobody listens until it is back."""
        for i, line in enumerate(self.compartments.lines):
            server = self._servers[i]
            if line.off and server is not None:
                self._servers[i] = None
                await server.shutdown()
            elif not line.off and server is None:
                self._servers[i] = await self._listen(i, self.ports[i])

    async def _bind(self, port: int) -> list[int]:
        ports: list[int] = []
        for i in range(len(self._servers)):
            wanted = port + i if port else 0
            self._servers[i] = server = await self._listen(i, wanted)
            ports.append(server.transport.sockets[0].getsockname()[1])  # type: ignore[union-attr]
        return ports

    async def _listen(self, index: int, port: int) -> ModbusTcpServer:
        devices = _devices(self.compartments.plcs[index], self.compartments.lines[index])
        server = ModbusTcpServer(devices, address=(self._host, port), trace_connect=self._note_connection)
        with contextlib.suppress(RuntimeError):
            await server.serve_forever(background=True)
        if server.transport is None:
            raise BadInput(
                f"cannot serve at {self._host}:{port}: the port is taken or the address is not this machine's"
            )
        return server

    async def _close(self) -> None:
        for server in self._servers:
            if server is not None:
                await server.shutdown()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _note_connection(self, connected: bool) -> None:
        self._connected = self._connected or connected


def make_emulator(
    *,
    num: int = 1,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    time_scale: float = 1.0,
    faults: Sequence[str] = (),
    seed: int = 0,
    plant: Plant | None = None,
) -> Emulator:
    """An emulator from plain values, as the command line has them; faults as `name[:at[:duration[:value]]]`."""
    if num < 1 or (plant is not None and plant.num_robots != num):
        raise BadInput(f"{num} compartments given; expected at least 1, and as many as the plant has")
    rng = np.random.default_rng(seed)
    house = Compartments(plant, num=num, seed=seed, faults=[parse_fault(text, rng) for text in faults])
    return Emulator(house, host=host, port=port, time_scale=time_scale)


def _devices(plc: Plc, line: Line) -> list[SimDevice]:
    async def act(
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        if line.silent:  # ends this request's task; answered late, it would be taken for the answer to a later one
            raise asyncio.CancelledError
        line.requests += 1
        space = SPACES.get(function)
        try:
            if space is None:
                raise ModbusRefusal(1)
            if values is not None:
                plc.write(space, address, [int(v) for v in values])
                if space == "holding":  # what was accepted may differ from what was written
                    values[:] = [int(v) for v in plc.read(space, address, len(values))]  # type: ignore[assignment]
            elif space in ("coil", "discrete"):
                bits = plc.read(space, 0, 3 if space == "coil" else 7)
                registers[0] = sum(bit << i for i, bit in enumerate(bits))
            else:
                registers[address - start : address - start + count] = plc.read(space, address, count)
        except ModbusRefusal as e:
            line.refused += 1
            return ExcCodes(e.code)
        return None

    blocks = (
        [SimData(0, count=3, values=False, datatype=DataType.BITS)],
        [SimData(0, count=7, values=False, datatype=DataType.BITS)],
        [SimData(0, count=HOLDING_SIZE, values=0, datatype=DataType.REGISTERS)],
        [SimData(0, count=INPUT_SIZE, values=0, datatype=DataType.REGISTERS)],
    )
    return [SimDevice(UNIT, blocks, action=act), SimDevice(0, blocks, action=_nobody)]


async def _nobody(*_: object) -> ExcCodes:
    """Every other unit id: as a gateway answers for a device that is not there."""
    return ExcCodes.GATEWAY_NO_RESPONSE
