"""Our own Crazyflie driver: `udp://host:port` (emulator or any CRTP-over-UDP firmware), other schemes through cflib.

State comes from two log blocks at 100 Hz (`telemetry.py`). Streamed set points are sent as they are written; one-shot
commands (take-off, landing, go-to) are repeated until the drone has answered. Nothing here sleeps in the caller's
thread except `open` and `arm`, which wait for the drone.
"""

import contextlib
import struct
import threading
import time

from hardware.clock import Clock, MonotonicClock
from hardware.errors import BadInput, LinkLost, RoboError, Unreachable
from hardware.robot import Command, RobotState
from hardware.robots.crazyflie import wire_commands, wire_localization
from hardware.robots.crazyflie.session import CflibLink, Link, Session
from hardware.robots.crazyflie.telemetry import BLOCKS, PERIOD_MS, Telemetry
from hardware.robots.crazyflie.wire import (
    LOG_TYPES,
    PARAM_TYPES,
    PROTOCOL_VERSION,
    SOURCE_TEXT,
    Frame,
    Info,
    LogCommand,
    Port,
    SupervisorCommand,
    WireError,
    pack_log_variables,
    pack_value,
    unpack_log_data,
    unpack_supervisor_reply,
    unpack_toc_info,
    unpack_toc_item,
)
from hardware.spec import RobotSpec, load_spec
from hardware.transport import UdpLink, parse_address

SCHEMES = ("udp", "radio", "usb", "tcp")
REPEAT_S = 0.06
"""An unanswered one-shot command is repeated after this."""
REPEATS = 16
STOP_REPEATS = 3

_tocs: dict[int, dict[str, int]] = {}
"""Tables of contents by their check sum: name -> id."""


class Driver:
    """A `RobotIO` to one Crazyflie."""

    def __init__(
        self,
        address: str,
        *,
        clock: Clock | None = None,
        spec: RobotSpec | None = None,
        connect_timeout_s: float = 2.0,
        silence_s: float = 0.5,
        link: Link | None = None,
    ) -> None:
        self.spec = spec or load_spec("crazyflie")
        self.address = address
        self._clock = clock or MonotonicClock()
        self._connect_timeout_s, self._silence_ns = connect_timeout_s, int(silence_s * 1e9)
        self._by_udp = address.startswith("udp:")
        self._link = link or _link(address)
        self._session: Session | None = None
        self._telemetry = Telemetry()
        self._armed = False
        self._pending: tuple[list[Frame], int] | None = None
        self._pending_at = 0.0
        self._sending = threading.Lock()
        """Held while a pending command goes out, so that the receiving thread repeats nothing that was given up."""
        self.refused: str = ""
        """The last one-shot command that the drone answered with an error."""

    def open(self) -> None:
        """Connects and waits for the first state; raises Unreachable, or RoboError for firmware that is too old."""
        if self._session is not None:
            return
        start = time.monotonic()
        self._telemetry = Telemetry()
        session = Session(self._link, self._clock, self._on_frame)
        session.every_turn = self._repeat_pending
        try:
            session.open()
            self._session = session
            self._handshake(session)
            self._start_logging(session)
            self._await_state(start)
        except (LinkLost, WireError) as e:
            hint = str(e) if session.heard_ns else self._hint()
            self._shut()
            raise Unreachable(self.address, time.monotonic() - start, hint) from e
        except BaseException:
            self._shut()
            raise

    def read(self) -> RobotState:
        """The newest state; raises LinkLost once nothing has been heard for `silence_s`."""
        session, state = self._opened(), self._telemetry.state
        if session.lost or state is None:
            raise LinkLost(f"{self.address}: {session.lost or 'no state yet'}")
        silent_ns = self._clock.now_ns() - (session.heard_ns or 0)
        if silent_ns > self._silence_ns:
            raise LinkLost(f"{self.address} has been silent for {silent_ns / 1e9:.2f} s")
        return state

    def write(self, command: Command) -> None:
        """Sends a command; raises RoboError before arm() and for a mode that this link cannot carry."""
        if not self._armed:
            raise RoboError(f"{self.address} is not armed: call arm() before write()")
        message = self._message(command)
        if isinstance(message, wire_commands.HighLevel):
            # Streaming must have ended before the high-level commander may fly; both are repeated until answered.
            ended = wire_commands.encode_setpoint(wire_commands.NotifyStop())
            with self._sending:
                self._pending = ([ended, wire_commands.encode_high_level(message)], REPEATS)
                self._pending_at = 0.0
            self._repeat_pending()
        else:
            self._give_up()
            self._opened().send(wire_commands.encode_setpoint(message))

    def arm(self, timeout_s: float = 2.0) -> None:
        """Arms and unlocks the thrust; raises RoboError with the drone's reason after `timeout_s`."""
        session = self._opened()
        self._give_up()  # a stop that is still being repeated would disarm the drone again
        request = Frame(Port.SUPERVISOR, 1, bytes([SupervisorCommand.ARM, 1]))
        deadline = time.monotonic() + timeout_s
        while True:
            data = session.ask(request, bytes([SupervisorCommand.ARM | 0x80]), timeout_s=timeout_s)
            if unpack_supervisor_reply(data).state:
                break
            if time.monotonic() > deadline:
                raise RoboError(f"{self.address} refuses to arm: {self._reason()}")
            time.sleep(0.05)
        if Info.FLYING not in self._telemetry.info:
            # The firmware takes no thrust before it has seen zero; then the high-level commander may have the word.
            session.send(wire_commands.encode_setpoint(wire_commands.Attitude(0.0, 0.0, 0.0, 0.0)))
            session.send(wire_commands.encode_setpoint(wire_commands.NotifyStop()))
        self._armed = True

    def stop(self) -> None:
        """Motors off, from any state; idempotent, never raises.

        The drone is not disarmed in the air, because its supervisor would lock itself until a restart; it disarms
        itself once it lies still.
        """
        self._armed = False
        self._give_up()
        session = self._session
        if session is None:
            return
        off = [wire_commands.encode_setpoint(m) for m in (wire_commands.Stop(), wire_commands.NotifyStop())]
        if Info.FLYING not in self._telemetry.info:
            off.append(Frame(Port.SUPERVISOR, 1, bytes([SupervisorCommand.ARM, 0])))
        with contextlib.suppress(LinkLost, WireError):
            for _ in range(STOP_REPEATS):
                for frame in off:
                    session.send(frame)
            # Also repeated from the background, for a link that loses packets; the answer is the motors' silence.
            with self._sending:
                self._pending, self._pending_at = (off, REPEATS // 4), time.monotonic() + REPEAT_S

    def close(self) -> None:
        """Stops if armed, ends the log blocks, releases the link; idempotent."""
        if self._session is None:
            return
        if self._armed:
            self.stop()
        with contextlib.suppress(LinkLost):
            self._session.send(Frame(Port.LOG, 1, bytes([LogCommand.RESET])))
        self._shut()

    def emergency_stop(self) -> None:
        """Locks the motors; only a restart of the drone clears that."""
        self._opened().send(Frame(Port.SUPERVISOR, 1, bytes([SupervisorCommand.EMERGENCY_STOP])))

    def send_external_pose(self, position: wire_commands.Vec3, quat_wxyz: wire_commands.Quat | None = None) -> None:
        """Tells the drone where motion capture sees it: position (m, world), and attitude if known."""
        pose = wire_localization.ExternalPosition(position)
        if quat_wxyz is not None:
            pose = wire_localization.ExternalPose(position, quat_wxyz)
        self._opened().send(wire_localization.encode_localization(pose))

    def set_parameter(self, name: str, value: float, kind: str = "float") -> None:
        """Writes a parameter by name (`group.name`) and type; raises BadInput where the drone refuses it."""
        if kind not in PARAM_TYPES or name.count(".") != 1:
            raise BadInput(f"parameter '{name}' of type '{kind}'; expected group.name and one of {list(PARAM_TYPES)}")
        head = b"\0" + name.replace(".", "\0").encode("ascii") + b"\0"
        t = PARAM_TYPES[kind]
        request = Frame(Port.PARAM, 3, head + bytes([t.code]) + pack_value(t, value))
        error = self._opened().ask(request, head)[-1]
        if error:
            raise BadInput(f"{self.address} refuses parameter '{name}' = {value} ({kind}): error {error}")

    def _message(self, command: Command) -> wire_commands.Setpoint | wire_commands.HighLevel:
        v = [float(x) for x in command.values]
        match command.mode:
            case "attitude_thrust":
                return wire_commands.Attitude(v[0], v[1], v[2], v[3])
            case "rotor_thrust":
                if not self._by_udp:
                    raise RoboError(
                        f"{self.address}: rotor thrusts are for policies on board; the radio carries none of them"
                    )
                return wire_commands.RotorThrust((v[0], v[1], v[2], v[3]))
            case "position":
                return wire_commands.Position(v[0], v[1], v[2], v[3])
            case "hover":
                return wire_commands.Hover(v[0], v[1], v[2], v[3])
            case "takeoff":
                return wire_commands.Takeoff(v[0], v[1])
            case "land":
                return wire_commands.Land(v[0], v[1])
            case "go_to":
                return wire_commands.GoTo((v[0], v[1], v[2]), v[3], v[4])
        self.spec.mode(command.mode)  # raises for a mode that there is not
        raise RoboError(f"mode '{command.mode}' of robot {self.spec.name} has no packet in this driver")

    def _handshake(self, session: Session) -> None:
        session.ask(Frame(Port.LINK, 1, b""), SOURCE_TEXT[:-1], timeout_s=self._connect_timeout_s)
        version = session.ask(Frame(Port.PLATFORM, 1, b"\0"), b"\0")
        if len(version) < 2 or version[1] < PROTOCOL_VERSION:
            raise RoboError(
                f"{self.address} speaks CRTP version {version[1:].hex()}; expected at least {PROTOCOL_VERSION:#x}: "
                "update the firmware"
            )

    def _start_logging(self, session: Session) -> None:
        session.ask(Frame(Port.LOG, 1, bytes([LogCommand.RESET])), bytes([LogCommand.RESET]))
        ids = _log_ids(session)
        for block, variables in BLOCKS.items():
            missing = [name for name, _ in variables if name not in ids]
            if missing:
                raise RoboError(f"{self.address} has no log variable {', '.join(missing)}: update the firmware")
            parts = [(LOG_TYPES[kind].code, ids[name]) for name, kind in variables]
            for n, command in ((0, LogCommand.CREATE), (9, LogCommand.APPEND)):
                if parts[n : n + 9]:
                    data = pack_log_variables(command, block, parts[n : n + 9])
                    self._log_request(session, data, command, block)
        for block in BLOCKS:
            self._log_request(session, bytes([LogCommand.START, block, PERIOD_MS // 10]), LogCommand.START, block)

    def _log_request(self, session: Session, data: bytes, command: LogCommand, block: int) -> None:
        error = session.ask(Frame(Port.LOG, 1, data), bytes([command, block]))[-1]
        if error not in (0, 17):  # 17: there already, because our question came twice
            raise RoboError(f"{self.address} refuses log block {block} ({command.name}): error {error}")

    def _await_state(self, start: float) -> None:
        deadline = time.monotonic() + 1.0
        while self._telemetry.state is None:
            if time.monotonic() > deadline:
                raise Unreachable(self.address, time.monotonic() - start, "it answers, but sends no log data")
            time.sleep(0.002)

    def _on_frame(self, frame: Frame, heard_ns: int) -> None:
        if (frame.port, frame.channel) == (Port.LOG, 2):
            block, low24_ms, values = unpack_log_data(frame.data)
            self._telemetry.take(block, low24_ms, values, heard_ns)
        elif frame.port == Port.HIGH_LEVEL and len(frame.data) == 4:
            with self._sending:
                pending = self._pending
                if pending is None or pending[0][-1].data[:1] != frame.data[:1]:
                    return
                self._pending = None
            # A repetition of a command that was carried out is refused as busy: that is success.
            if frame.data[3] and pending[1] >= REPEATS - 1:
                self.refused = f"high-level command {frame.data[0]} was refused with error {frame.data[3]}"

    def _repeat_pending(self) -> None:
        with self._sending:
            pending, session = self._pending, self._session
            if pending is None or session is None or time.monotonic() < self._pending_at:
                return
            frames, left = pending
            self._pending = (frames, left - 1) if left > 1 else None
            self._pending_at = time.monotonic() + REPEAT_S
            for frame in frames:
                session.send(frame)

    def _give_up(self) -> None:
        """What is pending is not repeated any more once this returns."""
        with self._sending:
            self._pending = None

    def _hint(self) -> str:
        if not self._by_udp:
            return "is it switched on, and are channel, rate and address right?"
        return "is it running? an emulated one starts with 'robo-rl emulate crazyflie'"

    def _reason(self) -> str:
        info = self._telemetry.info
        if Info.LOCKED in info:
            return "it is locked after an emergency stop or a time-out of its set points; restart it"
        if Info.TUMBLED in info:
            return "it lies on its side or back; put it upright"
        if Info.CRASHED in info:
            return "it has crashed; request its recovery or restart it"
        return "its pre-flight checks have not passed"

    def _opened(self) -> Session:
        if self._session is None:
            raise LinkLost(f"{self.address} is not open")
        return self._session

    def _shut(self) -> None:
        session, self._session, self._armed, self._pending = self._session, None, False, None
        if session is not None:
            session.close()
        self._link.close()


def _link(address: str) -> Link:
    scheme = address.partition("://")[0]
    if scheme not in SCHEMES or "://" not in address:
        known = ", ".join(f"{s}://" for s in SCHEMES)
        raise BadInput(f"address '{address}' of robot crazyflie; expected one of {known} as in udp://127.0.0.1:19850")
    if scheme != "udp":
        return CflibLink(address)
    parsed = parse_address(address, schemes=("udp",))
    return UdpLink(parsed.host, parsed.port)


def _log_ids(session: Session) -> dict[str, int]:
    """Name -> id of all log variables; asked for once per check sum and process."""
    count, crc = unpack_toc_info(session.ask(Frame(Port.LOG, 0, b"\x03"), b"\x03"))
    if crc not in _tocs:
        ids = {}
        for ident in range(count):
            request = struct.pack("<BH", 2, ident)
            item = unpack_toc_item(session.ask(Frame(Port.LOG, 0, request), request))
            ids[f"{item.group}.{item.name}"] = ident
        _tocs[crc] = ids
    return _tocs[crc]
