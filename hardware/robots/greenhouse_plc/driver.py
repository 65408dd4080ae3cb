"""Our driver for greenhouse controllers: `modbus://host:port?profile=NAME&unit=N&write=on`.

The register table says what the device holds; the emulated PLC's is the default. Without `write=on` nothing is ever
written: the policy then runs beside the grower's own control and only its wishes are recorded. A background thread
polls, beats and keeps the device at the command in force (`session.py`).
"""

import threading
import time
from collections import deque
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

from hardware.clock import Clock, MonotonicClock
from hardware.errors import BadInput, LinkLost, RoboError, Unreachable
from hardware.robot import Command, RobotState
from hardware.robots.greenhouse_plc.bus import Bus, TcpBus
from hardware.robots.greenhouse_plc.session import Session
from hardware.robots.greenhouse_plc.table import EMULATED, Table, check_against, load_table
from hardware.spec import RobotSpec, load_spec

DEFAULT_PORT = 502
TRY_S = (0.25, 1.0)
"""Shortest and longest patience for one answer, in real time; a plant that runs faster is on this machine."""
HURRY_S = 0.2
"""Longest sleep of the thread, in real time."""
STOP_WAIT_S = 1.5
"""How long `stop` waits, in real time, for the device to be back at its own control."""


class Driver:
    """A `RobotIO` to one greenhouse controller."""

    def __init__(
        self,
        address: str,
        *,
        clock: Clock | None = None,
        spec: RobotSpec | None = None,
        connect_timeout_s: float = 3.0,
        bus: Bus | None = None,
        table: Table | None = None,
        background: bool = True,
    ) -> None:
        """`bus` and `background=False` are for stepped tests: every read then does what is due by the clock."""
        self.spec = spec or load_spec("greenhouse_plc")
        self.address, self._clock = address, clock or MonotonicClock()
        host, port, options = _parse(address)
        self.table = table or load_table(options.get("profile", EMULATED))
        if "unit" in options:
            self.table = replace(self.table, unit=_unit(options["unit"]))
        check_against(self.table, self.spec)
        self.writes = _switch(options.get("write", "off"))
        """False: a dry run."""
        scale = getattr(self._clock, "scale", 1.0)
        timeout_s = min(max(TRY_S[1] / scale, TRY_S[0]), TRY_S[1])
        self._bus = bus or TcpBus(host, port, self.table.unit, timeout_s=timeout_s)
        self._scale, self._background, self._connect_timeout_s = scale, background, connect_timeout_s
        self._session: Session | None = None
        self._wishes: deque[tuple[Command | None, float]] = deque()
        self._armed = False
        self._wake, self._done = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def trouble(self) -> str:
        """What is wrong with the link or the last command; empty while all is well."""
        return self._session.trouble if self._session else ""

    def open(self) -> None:
        """Connects and waits for the first state; raises Unreachable, or BadInput for a wrong map, unit or order."""
        if self._session is not None:
            return
        session = Session(self._bus, self.table, self.spec, self._clock, writes=self.writes)
        start = time.monotonic()
        try:
            session.connect()
            while session.state is None:
                if time.monotonic() - start > self._connect_timeout_s:
                    raise Unreachable(self.address, time.monotonic() - start, "it answers, but no sensor has measured")
                time.sleep(0.02)
                session.turn()
        except LinkLost as e:
            session.close()
            hint = f"{e}; an emulated one starts with 'robo-rl emulate greenhouse_plc'"
            raise Unreachable(self.address, time.monotonic() - start, hint) from e
        except BaseException:
            session.close()
            raise
        self._session = session
        if self._background:
            self._done.clear()
            self._thread = threading.Thread(target=self._run, args=(session,), name="modbus", daemon=True)
            self._thread.start()

    def read(self) -> RobotState:
        """The newest state, with every status word since the last one.

        Raises LinkLost once nothing has been heard for the table's `silence_s`.
        """
        session = self._opened()
        if not self._background:
            self._turn(session)
        state, silent_s = session.state, (self._clock.now_ns() - session.heard_ns) / 1e9
        if state is None or silent_s > self.table.silence_s:
            raise LinkLost(f"{self.address} has been silent for {silent_s:.0f} s: {session.trouble or 'no state yet'}")
        words = {"armed"} if self._armed else set()
        if not session.connected:
            words.add("no_answer")
        elif session.trouble:
            words.add("command_refused")
        return replace(state, status=session.words_since() | words)

    def write(self, command: Command) -> None:
        """Makes a command the one in force; raises RoboError before arm() and for a mode without registers."""
        if not self._armed:
            raise RoboError(f"{self.address} is not armed: call arm() before write()")
        mode = self.spec.mode(command.mode)
        if command.mode not in self.table.write:
            known = ", ".join(self.table.write) or "none"
            raise RoboError(f"table '{self.table.name}' has no registers for mode '{command.mode}'; modes: {known}")
        self._say(command, self.table.command_periods / mode.rate_hz)

    def arm(self) -> None:
        """Lets commands through; raises RoboError while the operator's key is off. A dry run needs no key."""
        session = self._opened()
        if not session.connected:
            raise RoboError(f"{self.address} cannot be armed: {session.trouble}")
        if self.writes and not session.enabled:
            raise RoboError(f"{self.address} cannot be armed: the operator's remote-enable key (coil 0) is off")
        self._armed = True

    def stop(self) -> None:
        """Gives the greenhouse back to its own control, from any state; idempotent, never raises.

        Where the link is down, the heartbeat ends here, and the PLC's watchdog does the same.
        """
        was, self._armed = self._armed, False
        session = self._session
        if session is None or not (was or session.settled is False):
            return
        self._say(None, float(10**9))
        until = time.monotonic() + STOP_WAIT_S
        while session.connected and self._background and time.monotonic() < until:
            if not self._wishes and session.settled:
                break
            time.sleep(0.005)

    def close(self) -> None:
        """Stops if armed, releases the link; idempotent."""
        if self._session is None:
            return
        if self._armed:
            self.stop()
        self._done.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._session.close()
        self._session = None

    def _say(self, command: Command | None, valid_s: float) -> None:
        self._wishes.append((command, valid_s))
        if self._background:
            self._wake.set()
        elif self._session is not None:
            self._turn(self._session)

    def _run(self, session: Session) -> None:
        while not self._done.is_set():
            self._turn(session)
            wait_s = (session.due_ns() - self._clock.now_ns()) / 1e9 / self._scale
            if wait_s > 0.0 and not self._wishes:
                self._wake.wait(min(wait_s, HURRY_S))
            self._wake.clear()

    def _turn(self, session: Session) -> None:
        while self._wishes:
            session.wish(*self._wishes.popleft())
        session.turn()

    def _opened(self) -> Session:
        if self._session is None:
            raise LinkLost(f"{self.address} is not open")
        return self._session


_OPTIONS = ("profile", "unit", "write")


def _parse(address: str) -> tuple[str, int, dict[str, str]]:
    expected = "modbus://HOST:PORT, with ?write=on, profile=NAME, unit=N where wanted"
    try:
        parts = urlsplit(address)
        host, port, options = parts.hostname, parts.port, dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError as e:
        raise BadInput(f"address '{address}' of robot greenhouse_plc: {e}; expected {expected}") from None
    if parts.scheme != "modbus" or not host or parts.path:
        raise BadInput(f"address '{address}' of robot greenhouse_plc; expected {expected}")
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise BadInput(f"address '{address}': no option {', '.join(unknown)}; options: {', '.join(_OPTIONS)}")
    return host, port or DEFAULT_PORT, options


def _unit(text: str) -> int:
    if not text.isdigit() or not 0 <= int(text) <= 247:
        raise BadInput(f"unit '{text}'; expected 0..247")
    return int(text)


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise BadInput(f"write '{text}'; expected on or off")
    return text == "on"
