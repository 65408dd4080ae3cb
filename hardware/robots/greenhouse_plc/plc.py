"""The emulated PLC's program: one compartment, stepped in plant time, spoken to in registers.

No sockets, no clock: `scan` advances it by five seconds, `read` and `write` are what the Modbus server passes on.
Register map and rules: README.md.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.robots.greenhouse_plc import climate
from hardware.robots.greenhouse_plc.climate import Alarms, Outputs, Sensed, Setpoints
from hardware.robots.greenhouse_plc.sensors import Noise, Samples
from hardware.robots.greenhouse_plc.wire import BAD_SENSOR, CHECK_VALUE, ModbusRefusal, Space, Status, encode

SCAN_S = 5.0
WATCHDOG_S = 120.0
AREA_M2 = 1000.0
MAXIMA = Outputs(vent=7.5, heat=150.0, co2=1.2)
"""Full vents, mm/s; heating, W/m2; CO2 flow, mg/m2/s."""
PIPE_C = 60.0
"""Pipe over air temperature at full heating."""
LOCAL, REMOTE_SETPOINTS, REMOTE_DIRECT = range(3)
HUMIDITY_MAX = 0.9
"""Of the local and fail-safe set points."""

HOLDING_SIZE, INPUT_SIZE, FORECAST = 132, 304, 200
COMMAND = range(101, 113)
"""Holding registers that are accepted as one."""
_BOUNDS = {
    101: (0, 2),
    102: (50, 300),
    103: (80, 350),
    104: (350, 1500),
    105: (500, 950),
    110: (0, 1000),
    111: (0, 1000),
    112: (0, 1000),
    120: (30, 300),
    121: (80, 350),
    122: (0, 1500),
}
_FAILSAFE = {120: 100, 121: 250, 122: 0}
_WRITABLE = {100, *COMMAND, *_FAILSAFE, 130}


class Counters(NamedTuple):
    """Used since the season began; they survive a restart."""

    heat_kwh: float = 0.0
    co2_g: float = 0.0


class Plc:
    """One compartment's controller. `enabled` is the operator's key: remote commands are taken only while it is on."""

    def __init__(self, *, strict: bool = False, noise: Noise | None = None, seed: int = 0) -> None:
        self.strict, self.enabled = strict, True
        self.samples = Samples(noise or Noise(), np.random.default_rng(seed))
        self.now_s = 0.0
        self.counters = Counters()
        self.actual = Outputs(0.0, 0.0, 0.0)
        self.stuck: set[str] = set()
        """Names of actuators that do not move: `vent`, `heat`, `co2`."""
        self.trips = 0
        self._mean = np.zeros(3)
        self._scans = 0
        self.restart()

    def restart(self) -> None:
        """Power comes back: everything that is not retentive is as at the first start."""
        self.uptime_s = 0.0
        self.holding = [0] * HOLDING_SIZE
        for address, value in _FAILSAFE.items():
            self.holding[address] = value
        self.mode, self.tripped, self.clipped, self.emergency = LOCAL, False, False, False
        self.wanted = self.actual
        self.alarms = Alarms(False, False, False, False, False)
        self._staged: list[int] | None = None
        self._accepted = [0] * len(COMMAND)
        self._beat_s = 0.0

    # --- plant time ----------------------------------------------------------------------------------------------

    def scan(self) -> None:
        """One cycle: watchdog, controllers or direct outputs, interlocks, actuators, counters."""
        self.now_s += SCAN_S
        self.uptime_s += SCAN_S
        if self.mode != LOCAL and self.uptime_s - self._beat_s > WATCHDOG_S:
            self._trip()
        if not self.enabled:
            self.mode = LOCAL
        sensed = self.sensed()
        self.wanted, self.alarms = climate.interlocks(self._decide(sensed), sensed)
        if self.emergency:  # people first: nothing is dosed, nothing heats, nothing moves
            self.wanted = Outputs(self.actual.vent, 0.0, 0.0)
        moved = climate.move(self.actual, self.wanted, SCAN_S)
        self.actual = moved._replace(**{name: getattr(self.actual, name) for name in self.stuck})
        used = self.counters
        self.counters = Counters(
            used.heat_kwh + self.actual.heat * MAXIMA.heat * AREA_M2 * SCAN_S / 3.6e6,
            used.co2_g + self.actual.co2 * MAXIMA.co2 * AREA_M2 * SCAN_S / 1e3,
        )
        self._mean += self.actual
        self._scans += 1

    def idle(self) -> None:
        """A cycle without power: valves fall shut, vents stay where they are, nothing is measured or counted."""
        self.now_s += SCAN_S
        self.wanted = self.actual = Outputs(self.actual.vent, 0.0, 0.0)
        self._mean += self.actual
        self._scans += 1

    def drive(self) -> NDArray[np.float64]:
        """CO2 (mg/m2/s), ventilation (mm/s), heating (W/m2): the mean since the last call, for the plant."""
        vent, heat, co2 = self._mean / max(self._scans, 1)
        self._mean, self._scans = np.zeros(3), 0
        return np.array([co2 * MAXIMA.co2, vent * MAXIMA.vent, heat * MAXIMA.heat])

    def sample(self, truth: Mapping[str, NDArray[np.float64]]) -> None:
        """The sensors measure the world as it is now."""
        self.samples.sample(truth, self.now_s)

    def sensed(self) -> Sensed:
        """What the program acts on."""
        v = self.samples.values
        if not v:
            return Sensed(*[math.nan] * 5)
        return Sensed(
            float(v["air_temperature"]),
            float(v["relative_humidity"]),
            float(v["co2"]),
            float(v["outdoor"][0]),
            float(v["outdoor"][4]),
        )

    def _decide(self, sensed: Sensed) -> Outputs:
        a = dict(zip(COMMAND, self._accepted, strict=True))
        if self.mode == REMOTE_DIRECT:
            return Outputs(a[110] / 1000, a[111] / 1000, a[112] / 1000)
        if self.mode == REMOTE_SETPOINTS:
            return climate.follow(Setpoints(a[102] / 10, a[103] / 10, a[104], a[105] / 1000), sensed, self.wanted)
        heating, vent, co2 = (self.holding[i] for i in _FAILSAFE)
        return climate.follow(Setpoints(heating / 10, vent / 10, co2, HUMIDITY_MAX), sensed, self.wanted)

    def _trip(self) -> None:
        self.mode, self.tripped = LOCAL, True
        self.trips += 1

    # --- registers -----------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """The status bits."""
        bits = {
            Status.WATCHDOG: self.tripped,
            Status.LOCAL: self.mode == LOCAL,
            Status.SENSOR_FAULT: bool(self.samples.broken),
            Status.FROST: self.alarms.frost,
            Status.OVERHEAT: self.alarms.overheat,
            Status.CO2_HIGH: self.alarms.co2_high,
            Status.CLIPPED: self.clipped,
        }
        return Status(sum(bit for bit, on in bits.items() if on))

    def read(self, space: Space, address: int, count: int) -> list[int]:
        """Registers or bits; raises ModbusRefusal(2) beyond the map."""
        image = {
            "coil": self._coils,
            "discrete": lambda: [int(bool(self.status & bit)) for bit in Status],
            "holding": lambda: self.holding,
            "input": self._inputs,
        }[space]()
        if count < 1 or address < 0 or address + count > len(image):
            raise ModbusRefusal(2, f"read {space} {address}")
        return image[address : address + count]

    def write(self, space: Space, address: int, values: Sequence[int]) -> None:
        """Takes registers or bits; raises ModbusRefusal: 2 where nothing may be written, 3 for a value out of range."""
        if space == "coil":
            self._write_coils(address, values)
            return
        addresses = range(address, address + len(values))
        if space != "holding" or not set(addresses) <= _WRITABLE | set(range(106, 110)):
            raise ModbusRefusal(2, f"write {space} {address}")
        given = dict(zip(addresses, (int(v) for v in values), strict=True))
        outside = {i for i, v in given.items() if i in _BOUNDS and not _BOUNDS[i][0] <= v <= _BOUNDS[i][1]}
        if 101 in outside or (outside and self.strict):
            raise ModbusRefusal(3, f"write {space} {min(outside)} = {given[min(outside)]}")
        for i, v in given.items():
            if i == 100 and v != self.holding[100]:
                self._beat_s = self.uptime_s
            if i not in (130, *COMMAND):
                self.holding[i] = min(max(v, _BOUNDS[i][0]), _BOUNDS[i][1]) if i in _BOUNDS else v
        self._stage(given)
        if 130 in given:
            self._accept(given[130])

    def _stage(self, given: Mapping[int, int]) -> None:
        touched = set(given) & set(COMMAND)
        if touched:  # anything but the whole block in one request is incomplete, and spoils what was staged
            self._staged = [given[i] for i in COMMAND] if touched == set(COMMAND) else None
        for i in touched:
            self.holding[i] = given[i]

    def _accept(self, sequence: int) -> None:
        self.holding[130] = sequence
        staged, self._staged = self._staged, None
        if staged is None or sequence == self.holding[131]:
            return
        remote = staged[0] != LOCAL
        if remote and (self.tripped or not self.enabled or self.emergency):
            return
        clipped = [
            min(max(v, _BOUNDS[i][0]), _BOUNDS[i][1]) if i in _BOUNDS and (i > 105 or self._matters(i, v)) else v
            for i, v in zip(COMMAND, staged, strict=True)
        ]
        self.clipped = clipped != staged
        self._accepted = clipped
        for i, v in zip(COMMAND, clipped, strict=True):
            self.holding[i] = v
        if remote and self.mode == LOCAL:
            self._beat_s = self.uptime_s
        self.mode = clipped[0]
        self.holding[131] = sequence

    def _matters(self, address: int, value: int) -> bool:
        """Set points of 0 stand for 'not used' in direct mode and are no mistake."""
        return value != 0 or self.holding[101] == REMOTE_SETPOINTS

    def _write_coils(self, address: int, values: Sequence[int]) -> None:
        for i, value in enumerate(values, start=address):
            if i == 1:
                if value:
                    self.tripped = False
            elif i == 2:
                self.emergency = bool(value)
                if value:
                    self.mode = LOCAL
            else:  # the operator's key is no client's business
                raise ModbusRefusal(2, f"write coil {i}")

    def _coils(self) -> list[int]:
        return [int(self.enabled), 0, int(self.emergency)]

    def _inputs(self) -> list[int]:
        image = [0] * INPUT_SIZE
        image[0], image[1], image[2] = int(self.status), int(self.uptime_s) % 65536, self.holding[100]
        v = self.samples.values
        names = ("air_temperature", "relative_humidity", "co2")
        t, rh, co2 = (float(v[n]) if v else math.nan for n in names)
        radiation, t_out, rh_out, co2_out, wind = v["outdoor"] if v else [math.nan] * 5
        image[10:13] = [_i16(10 * t), _u16(1000 * rh), _u16(co2)]
        image[13:18] = [_i16(10 * t_out), _u16(1000 * rh_out), _u16(radiation), _u16(10 * wind), _u16(co2_out)]
        image[18] = _i16(10 * (t + PIPE_C * self.actual.heat))
        image[20:23] = [_u16(1000 * share) for share in self.actual]
        image[24:26] = encode(10 * self.counters.heat_kwh, "u32")
        image[26:28] = encode(self.counters.co2_g, "u32")
        image[30:34] = [
            min(int(age), 65535) if math.isfinite(age) else 65535 for age in self.samples.ages_s(self.now_s)
        ]
        image[40:42] = encode(float(v["crop_dry_weight"]) if v else 0.0, "f32")
        image[42:48] = _floats(v["season"] if v else np.zeros(3))
        image[90:92] = encode(CHECK_VALUE, "f32")
        image[FORECAST : FORECAST + 104] = _floats(v["forecast"] if v else np.zeros(52))
        return image


def _i16(x: float) -> int:
    return encode(min(max(x, -32767), 32767), "i16")[0] if math.isfinite(x) else BAD_SENSOR


def _u16(x: float) -> int:
    return encode(min(max(x, 0), 65535), "u16")[0] if math.isfinite(x) else BAD_SENSOR


def _floats(values: NDArray[np.float64]) -> list[int]:
    raw = np.nan_to_num(np.asarray(values)).astype(">f4").tobytes()
    return np.frombuffer(raw, dtype=">u2").astype(int).tolist()
