"""The conversation with one device: polling, heartbeats, and keeping it at the command that is in force.

Stepped by `turn`, on the caller's clock, over any `Bus`; no threads, so that tests step it too. What it holds to:
nothing is written in a dry run, while the operator's key is off, or once a command has expired; whatever the device
forgot (restart), dropped (watchdog) or missed (lost network) is written again and read back.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware.clock import Clock
from hardware.errors import BadInput, LinkLost, RoboError
from hardware.robot import Command, RobotState
from hardware.robots.greenhouse_plc.bus import Bus
from hardware.robots.greenhouse_plc.table import Image, Register, Table, blocks, explain
from hardware.robots.greenhouse_plc.wire import ModbusRefusal, Space, Status, check_word_order, status_words
from hardware.spec import RobotSpec

BACK_OFF_S = (1.0, 30.0)
"""First and longest wait before the next attempt to connect; doubled in between."""
RETRY_S = 10.0
"""Wait before a command that was not accepted is written again."""
DEVIATION = 0.1
DEVIATION_S = 900.0
"""An actuator that is so far from its command for so long does not obey."""
NEVER = 65535
"""Sample age of a sensor that has not measured yet."""


@dataclass(frozen=True)
class Wish:
    """The command in force; `None` for the mode gives the device back to its own control."""

    mode: str | None
    values: Mapping[str, float]
    """Component -> value."""
    until_ns: int
    """Beyond this it is stale and is neither written nor kept alive."""


class Session:
    """Raises nothing in `turn`: what went wrong stands in `trouble`, and is tried again."""

    def __init__(self, bus: Bus, table: Table, spec: RobotSpec, clock: Clock, *, writes: bool) -> None:
        self._bus, self.table, self._spec, self._clock, self._writes = bus, table, spec, clock, writes
        self.state: RobotState | None = None
        self.trouble = ""
        """What is wrong with the link or the last command; empty while all is well."""
        self.connected = False
        self.enabled = False
        """The operator's key."""
        self.heard_ns = 0
        """When it last answered a whole poll."""
        self.reconnects, self.writes = 0, 0
        self._wish: Wish | None = None
        self._settled = True
        """The device is known to be at the wish."""
        self._image = Image()
        self._passed: deque[frozenset[str]] = deque(maxlen=1000)
        self._blocks = blocks(table.polled)
        self._written_mode: str | None = None
        self._written: dict[str, float] = {}
        self._good: dict[str, NDArray[np.float64]] = {}
        self._measured_ns = 0
        self._beat, self._sequence = 0, 0
        self._uptime = -1
        self._off_since: dict[int, int] = {}
        self._due_read = self._due_beat = self._due_command = self._due_connect = 0
        self._back_off_s = BACK_OFF_S[0]

    def connect(self) -> None:
        """First contact; raises LinkLost, or BadInput for a wrong map, unit or word order."""
        self._bus.connect()
        table = self.table
        try:
            if table.check is not None:
                words = self._bus.read(table.check.space, table.check.address, table.check.size)
                where = f"{table.check.space} register {table.check.address} of table '{table.name}'"
                check_word_order(words, table.check.order, table.check_value, where)
            self._poll()
        except ModbusRefusal as e:
            raise BadInput(explain(e, table)) from e
        self.connected, self.trouble = True, ""

    def wish(self, command: Command | None, valid_s: float) -> None:
        """Sets the command in force, and for how long; None gives the device back to its own control."""
        until = self._clock.now_ns() + round(valid_s * 1e9)
        if command is None:
            wish = Wish(None, {}, until)
        else:
            names = self._spec.mode(command.mode).components
            values = dict(zip(names, (float(v) for v in command.values), strict=True))
            wish = Wish(command.mode, values, until)
        stands = self._settled and self._is_near(wish)
        self._wish = wish
        if not stands:
            self._settled, self._due_command = False, 0

    def _is_near(self, wish: Wish) -> bool:
        """Whether what was last written differs from a wish by no more than the dead bands."""
        if wish.mode is None or wish.mode != self._written_mode:
            return False
        parts = self.table.write.get(wish.mode, {})
        return all(abs(wish.values[n] - self._written[n]) <= r.dead_band for n, r in parts.items())

    def turn(self) -> None:
        """Does what is due."""
        now = self._clock.now_ns()
        try:
            if not self.connected:
                if now < self._due_connect:
                    return
                self.connect()
                self.reconnects += 1
                self._back_off_s, self._due_beat = BACK_OFF_S[0], 0
            if now >= self._due_read:
                self._poll()
            self._command(now)
            self._heartbeat(now)
        except ModbusRefusal as e:
            self.trouble = explain(e, self.table)
        except RefusedCommand as e:
            self.trouble = str(e)
        except (LinkLost, BadInput) as e:
            self._lost(str(e))

    def due_ns(self) -> int:
        """When the next turn has something to do."""
        if not self.connected:
            return self._due_connect
        now, waiting = self._clock.now_ns(), [self._due_read]
        if self._alive(now) and self.table.control.heartbeat is not None:
            waiting.append(self._due_beat)
        if not self._settled and self._in_force(now):
            waiting.append(self._due_command)
        return min(waiting)

    def close(self) -> None:
        """Releases the link."""
        self.connected = False
        self._bus.close()

    # --- reading -------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        asked, period = self._clock.now_ns(), round(self.table.read_s * 1e9)
        # Due on a grid, so that states come evenly whatever the network adds.
        self._due_read = max(self._due_read + period, asked + period // 2) if self._due_read else asked + period
        for space, address, count in self._blocks:
            self._image.put(space, address, self._bus.read(space, address, count))
        self.heard_ns = heard = self._clock.now_ns()
        control, words = self.table.control, set[str]()
        if control.status is not None:
            words |= status_words(self._image.number(control.status))
        self.enabled = control.enable is None or bool(self._image.number(control.enable))
        self._notice_restart()
        fresh = self._take_signals()
        age_s = self._age_s()
        if fresh and age_s is not None:
            self._measured_ns = max(self._measured_ns, heard - round(age_s * 1e9))
        words |= self._words(heard)
        if self._measured_ns or not self.table.read:
            stamp = self._measured_ns if self.table.read else heard
            self.state = RobotState(stamp, dict(self._good), frozenset(words))
            self._passed.append(frozenset(words))

    def words_since(self) -> frozenset[str]:
        """Status words that held at any time since the last call: a fail-safe of a minute must not go unseen."""
        words = set(self.state.status if self.state else ())
        while self._passed:  # another thread may add meanwhile
            words |= self._passed.popleft()
        return frozenset(words)

    def _take_signals(self) -> bool:
        """Keeps every signal that is whole; a broken sensor's last value stands. True where all are whole."""
        whole = True
        for name, registers in self.table.read.items():
            values = self._image.values(registers)
            if np.isfinite(values).all():
                self._good[name] = values.reshape(self._spec.signals[name].shape)
            else:
                whole = False
        return whole

    def _age_s(self) -> float | None:
        """Age of the oldest sample; None before every sensor has measured."""
        ages = self.table.control.ages
        if ages is None:
            return 0.0
        worst = max(self._image.values([ages]))
        return None if worst >= NEVER else float(worst)

    def _notice_restart(self) -> None:
        uptime = self.table.control.uptime
        if uptime is None:
            return
        now = self._image.number(uptime)
        if now < self._uptime and self._uptime - now < 60000:  # 65536 s: the counter has come round, no restart
            self._settled, self._due_command = False, 0
        self._uptime = now

    def _words(self, now: int) -> set[str]:
        words = set[str]()
        wish = self._wish
        if not self._writes:
            words.add("dry_run")
        if self.enabled:
            words.add("remote_enabled")
        if wish is not None and wish.mode is not None and self._settled and self._writes:
            words.add("remote")
        return words | self._disobedient(now)

    def _disobedient(self, now: int) -> set[str]:
        """Names of actuators that have not followed their commands for a long time."""
        wish, actual = self._wish, self._good.get("actuators")
        if wish is None or wish.mode != "direct" or actual is None or not self._settled:
            self._off_since.clear()
            return set()
        mode = self._spec.mode("direct")
        found = set[str]()
        for i, (name, (_, high)) in enumerate(zip(mode.components, mode.limits.position, strict=True)):
            if abs(actual[i] - wish.values[name] / high) <= DEVIATION:
                self._off_since.pop(i, None)
            elif now - self._off_since.setdefault(i, now) > DEVIATION_S * 1e9:
                found.add(f"{name}_does_not_follow")
        return found

    # --- commanding ----------------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether the device was found at the wish."""
        return self._settled

    def _in_force(self, now: int) -> bool:
        return self._writes and self._wish is not None and now < self._wish.until_ns

    def _alive(self, now: int) -> bool:
        remote = self._wish is not None and self._wish.mode is not None
        return remote and self.enabled and self._in_force(now)

    def _heartbeat(self, now: int) -> None:
        beat = self.table.control.heartbeat
        if beat is None or not self._alive(now) or now < self._due_beat:
            return
        self._due_beat = now + round(self.table.heartbeat_s * 1e9)
        self._beat = self._beat % 65535 + 1
        self._bus.write("holding", beat.address, [self._beat])

    def _command(self, now: int) -> None:
        wish, control = self._wish, self.table.control
        if wish is None or not self._in_force(now) or (self._settled and self._holds(wish)) or now < self._due_command:
            return
        self._due_command = now + round(RETRY_S * 1e9)
        self._settled = False
        if wish.mode is not None and not self.enabled:
            self.trouble = "the operator's remote-enable key (coil 0) is off"
            return
        tripped = control.status is not None and self._image.number(control.status) & Status.WATCHDOG
        if tripped and control.acknowledge is not None:
            self._bus.write("coil", control.acknowledge.address, [1])
        if control.sequence is None:
            self._write_plainly(wish)
        else:
            self._write_sequence(wish, control.sequence)
        self._settled, self._written_mode, self._written = True, wish.mode, dict(wish.values)

    def _holds(self, wish: Wish) -> bool:
        """Whether the device, as it was last read, is in the wish's mode and at the accepted sequence."""
        control = self.table.control
        if control.mode is None:
            return True
        mode = control.modes["local" if wish.mode is None else wish.mode]
        same = self._image.number(control.mode) == mode
        if control.accepted is not None:
            same = same and self._image.number(control.accepted) == self._sequence
        if control.status is not None and wish.mode is not None:
            same = same and not self._image.number(control.status) & (Status.WATCHDOG | Status.LOCAL)
        return same

    def _write_sequence(self, wish: Wish, sequence: Register) -> None:
        """The whole command block in one request, then the number that makes it valid; read back."""
        control = self.table.control
        if control.block is None or control.accepted is None or control.mode is None:
            raise BadInput(f"table {self.table.name}: a sequence needs block, mode and accepted")
        first, last = control.block
        words = [0] * (last - first + 1)
        words[control.mode.address - first] = control.modes["local" if wish.mode is None else wish.mode]
        parts = self.table.write.get(wish.mode, {}) if wish.mode is not None else {}
        for name, register in parts.items():
            at = register.address - first
            words[at : at + register.size] = register.registers(wish.values[name])
        self._sequence = self._sequence % 65535 + 1
        if self._sequence == self._read_one(control.accepted):  # what a client before us has left there
            self._sequence = self._sequence % 65535 + 1
        self._bus.write("holding", first, words)
        self._bus.write("holding", sequence.address, [self._sequence])
        self.writes += 1
        accepted = self._read_one(control.accepted)
        held = self._bus.read("holding", first, len(words))
        self._image.put("holding", first, held)
        if accepted != self._sequence or held != words:
            what = f"sequence {self._sequence} was not accepted" if accepted != self._sequence else "it was clipped"
            raise RefusedCommand(f"{self.table.name}: {what}; the device holds mode {held[0]}")
        if control.status is not None:
            self._read_one(control.status)
        self.trouble = ""

    def _write_plainly(self, wish: Wish) -> None:
        """A device without sequence numbers: only what differs by more than its dead band, each read back."""
        control = self.table.control
        parts = self.table.write.get(wish.mode, {}) if wish.mode is not None else {}
        for name, register in parts.items():
            self._write_one(name, register, wish.values[name])
        if control.mode is not None:
            number = control.modes["local" if wish.mode is None else wish.mode]
            self._write_one("mode", control.mode, number)
        self.trouble = ""

    def _write_one(self, name: str, register: Register, value: float) -> None:
        wanted = register.registers(value)
        aim = register.values(wanted)[0]
        held = register.values(self._bus.read(register.space, register.address, register.size))[0]
        if abs(held - aim) <= register.dead_band:
            return
        self._bus.write(register.space, register.address, wanted)
        self.writes += 1
        back = self._bus.read(register.space, register.address, register.size)
        self._image.put(register.space, register.address, back)
        if abs(register.values(back)[0] - aim) > max(register.dead_band, 1e-6 * abs(aim)):
            raise RefusedCommand(
                f"{self.table.name}: {name} was written as {aim:g} and reads {register.values(back)[0]:g}"
            )

    def _read_one(self, register: Register) -> int:
        space: Space = register.space
        self._image.put(space, register.address, self._bus.read(space, register.address, register.size))
        return self._image.number(register)

    def _lost(self, why: str) -> None:
        self.trouble = why
        self.close()
        self._settled = False
        self._due_connect = self._clock.now_ns() + round(self._back_off_s * 1e9)
        self._back_off_s = min(2 * self._back_off_s, BACK_OFF_S[1])


class RefusedCommand(RoboError):  # noqa: N818
    """A command that the device did not take as it was written."""
