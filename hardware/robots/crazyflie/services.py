"""One emulated drone's answers to CRTP packets: everything an unmodified client asks between connecting and flying."""

import errno
import struct
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from hardware.errors import BadInput
from hardware.robots.crazyflie import logs, parameters, wire, wire_commands
from hardware.robots.crazyflie import wire_localization as wl
from hardware.robots.crazyflie.autopilot import Autopilot, Pilot
from hardware.robots.crazyflie.peers import drone_id
from hardware.robots.crazyflie.quatcompress import Quat
from hardware.robots.crazyflie.wire import Frame, Port, SupervisorCommand, WireError

FIRMWARE_TEXT = b"robo_rl emulator\0"
DEVICE_TEXT = b"CF21\0"

LOG_TOC, PARAMETER_TOC = logs.toc(), parameters.toc()
_localization = lru_cache(maxsize=64)(wl.decode_localization)
"""Motion capture sends every drone the same packets: they are read once."""
LOG_CRC, PARAMETER_CRC = wire.toc_crc(LOG_TOC), wire.toc_crc(PARAMETER_TOC)


class Services:
    """The packet handlers of drone `index`; malformed packets are counted and dropped, as by the firmware."""

    def __init__(self, autopilot: Autopilot, index: int) -> None:
        self._autopilot, self._index, self._id = autopilot, index, drone_id(index)
        self.logs = logs.LogBlocks()
        self.packets = 0
        """Packets that have arrived."""
        self.malformed = 0
        """Packets that were not understood."""
        self.last_error = ""
        self._handlers: dict[tuple[int, int], Callable[[bytes], list[bytes]]] = {
            (Port.LINK, 0): lambda data: [data],
            (Port.LINK, 1): lambda data: [wire.SOURCE_TEXT],
            (Port.LINK, 2): lambda data: [],
            (Port.LINK, 3): lambda data: [b""],
            (Port.PLATFORM, 0): self._platform,
            (Port.PLATFORM, 1): self._version,
            (Port.LOG, 0): lambda data: self._toc(data, LOG_TOC, LOG_CRC, bytes([logs.MAX_BLOCKS, logs.MAX_VARIABLES])),
            (Port.LOG, 1): self._log_control,
            (Port.PARAM, 0): lambda data: self._toc(data, PARAMETER_TOC, PARAMETER_CRC, b""),
            (Port.PARAM, 1): self._read_parameter,
            (Port.PARAM, 2): self._write_parameter,
            (Port.PARAM, 3): self._parameter_misc,
            (Port.MEMORY, 0): self._memory,
            (Port.SUPERVISOR, 0): self._supervisor_info,
            (Port.SUPERVISOR, 1): self._supervisor_command,
            (Port.HIGH_LEVEL, 0): self._high_level,
        }

    def handle(self, datagram: bytes) -> list[bytes]:
        """The datagrams that answer one datagram."""
        self.packets += 1
        try:
            frame = wire.decode(datagram)
            if frame.port in (Port.COMMANDER, Port.GENERIC) or (frame.port, frame.channel) == (Port.PLATFORM, 2):
                self._stream(frame)
                return []
            if frame.port == Port.LOCALIZATION:
                self._localize(frame)
                return []
            handler = self._handlers.get((frame.port, frame.channel))
            if handler is None:
                raise WireError(f"nothing listens on port {frame.port}, channel {frame.channel}")
            return [wire.encode(Frame(frame.port, frame.channel, data)) for data in handler(frame.data)]
        except WireError as e:
            self.malformed += 1
            self.last_error = str(e)
            return []

    def samples(self) -> list[bytes]:
        """Datagrams of the log blocks that are due at this tick."""
        now_ms = self._autopilot.now_ms
        due = self.logs.due(self._autopilot, self._index)
        return [wire.encode(Frame(Port.LOG, 2, wire.pack_log_data(i, now_ms, values))) for i, values in due]

    @property
    def _pilot(self) -> Pilot:
        return self._autopilot.pilots[self._index]

    def _stream(self, frame: Frame) -> None:
        message = wire_commands.decode_setpoint(frame)
        if not self._autopilot.stream(self._index, message):
            raise WireError(f"set point {message} is not emulated")

    def _localize(self, frame: Frame) -> None:
        pilot, p = self._pilot, self._pilot.parameters
        for m in _localization(frame):
            match m:
                case wl.EmergencyStop():
                    pilot.supervisor.emergency = True
                case wl.EmergencyStopWatchdog():
                    pilot.supervisor.feed_emergency_watchdog(self._autopilot.now_ms)
                case wl.ExternalPosition(position, drone) if drone in (None, self._id):
                    self._correct(position, None, p["locSrv.extPosStdDev"], 1.0)
                case wl.ExternalPose(position, quat, drone) if drone in (None, self._id):
                    self._correct(position, quat, p["locSrv.extPosStdDev"], p["locSrv.extQuatStdDev"])
                    return  # the firmware reads no further in a packet once it has found its own pose
                case wl.ExternalPosition(position, drone) | wl.ExternalPose(position, _, drone):
                    self._autopilot.peers.tell(self._index, drone or 0, position, self._autopilot.now_ms)

    def _correct(self, position: wire_commands.Vec3, quat: Quat | None, std_m: float, std: float) -> None:
        attitude = None if quat is None else np.array(quat)
        self._autopilot.estimator.correct(self._index, np.array(position), attitude, std_m=std_m, std_rad=std)

    def _platform(self, data: bytes) -> list[bytes]:
        # The old way to arm (1) and to recover (2), before the supervisor had a port of its own.
        if data[:1] == b"\x01" and len(data) == 2:
            ok = self._pilot.supervisor.request_arming(bool(data[1]))
            return [bytes([1, ok, self._pilot.supervisor.armed])]
        if data == b"\x02":
            ok = self._pilot.supervisor.request_recovery()
            return [bytes([2, ok, not self._pilot.supervisor.crashed])]
        raise WireError(f"platform command {data!r} is not emulated")

    def _version(self, data: bytes) -> list[bytes]:
        answers = {0: bytes([wire.PROTOCOL_VERSION]), 1: FIRMWARE_TEXT, 2: DEVICE_TEXT}
        if len(data) != 1 or data[0] not in answers:
            raise WireError(f"version request {data!r} unknown")
        return [data + answers[data[0]]]

    def _toc(self, data: bytes, toc: tuple[wire.TocItem, ...], crc: int, limits: bytes) -> list[bytes]:
        if data == bytes([wire.TOC_INFO]):
            return [wire.pack_toc_info(len(toc), crc, limits)]
        if data[:1] != bytes([wire.TOC_ITEM]):
            raise WireError(f"table request {data!r} unknown; protocol version 2 is spoken")
        _, ident = wire.unpack("<BH", data, "table request")
        return [wire.pack_toc_item(toc[ident])] if ident < len(toc) else [bytes([wire.TOC_ITEM])]

    def _log_control(self, data: bytes) -> list[bytes]:
        request = wire.unpack_log_control(data)
        return [bytes([request.command, request.block, self.logs.control(request)])]

    def _read_parameter(self, data: bytes) -> list[bytes]:
        (ident,) = wire.unpack("<H", data, "parameter read")
        if ident >= len(PARAMETER_TOC):
            return [data + bytes([errno.ENOENT])]
        return [data + b"\0" + self._packed(ident)]

    def _write_parameter(self, data: bytes) -> list[bytes]:
        if len(data) < 3:
            raise WireError(f"parameter write of {len(data)} bytes")
        (ident,) = struct.unpack_from("<H", data)
        if ident >= len(PARAMETER_TOC):
            return [data[:2] + bytes([errno.ENOENT])]
        p = parameters.PARAMETERS[ident]
        (value,) = wire.unpack(wire.PARAM_TYPES[p.type].layout, data[2:], f"parameter {p.name}")
        if p.read_only or value != value:
            return [data[:2] + self._packed(ident)]
        self._autopilot.set_parameter(self._index, p.name, value)
        return [data[:2] + self._packed(ident)]

    def _parameter_misc(self, data: bytes) -> list[bytes]:
        kind = data[0] if data else None
        if kind == 0:
            return [self._set_by_name(data)]
        # 2, 7 extended type; 3, 4, 5 storage in EEPROM; 6, 8 default value. No parameter has a type or storage.
        if kind not in (2, 3, 4, 5, 6, 7, 8):
            raise WireError(f"parameter request {kind} unknown")
        _, ident = wire.unpack("<BH", data, "parameter request")
        if kind not in (6, 8) or ident >= len(PARAMETER_TOC):
            return [data + bytes([errno.ENOENT])]
        p = parameters.PARAMETERS[ident]
        value = wire.pack_value(wire.PARAM_TYPES[p.type], p.default)
        return [data + (b"\0" if kind == 8 else b"") + value]

    def _set_by_name(self, data: bytes) -> bytes:
        parts = data[1:].split(b"\0", 2)
        if len(parts) != 3 or not parts[2]:
            raise WireError("parameter write by name without group, name, type and value")
        name = b".".join(parts[:2]).decode("ascii", "replace")
        head = data[: 3 + len(parts[0]) + len(parts[1])]
        if name not in parameters.INDEX:
            return head + bytes([errno.ENOENT])
        kind = wire.type_name(wire.PARAM_TYPES, parts[2][0])
        (value,) = wire.unpack(wire.PARAM_TYPES[kind].layout, parts[2][1:], f"parameter {name}")
        if kind != parameters.PARAMETERS[parameters.INDEX[name]].type:
            return head + bytes([errno.EINVAL])
        try:
            self._autopilot.set_parameter(self._index, name, value)
        except BadInput:
            return head + bytes([errno.EACCES])
        return head + b"\0"

    def _packed(self, ident: int) -> bytes:
        p = parameters.PARAMETERS[ident]
        return wire.pack_value(wire.PARAM_TYPES[p.type], self._pilot.parameters[p.name])

    def _memory(self, data: bytes) -> list[bytes]:
        if data != b"\x01":
            raise WireError(f"memory request {data!r}: the emulated drone has no memories")
        return [b"\x01\x00"]

    def _supervisor_info(self, data: bytes) -> list[bytes]:
        (kind,) = wire.unpack("<B", data, "supervisor request")
        info = self._autopilot.info(self._index)
        if kind == wire.GET_BITFIELD:
            return [struct.pack("<BH", wire.RESPONSE | kind, info)]
        if not 1 <= kind <= 11:
            raise WireError(f"supervisor request {kind} unknown")
        return [bytes([wire.RESPONSE | kind, int(info) >> (kind - 1) & 1])]

    def _supervisor_command(self, data: bytes) -> list[bytes]:
        command, argument = wire.unpack_supervisor_command(data)
        supervisor = self._pilot.supervisor
        if command == SupervisorCommand.ARM:
            return [bytes([wire.RESPONSE | command, supervisor.request_arming(argument), supervisor.armed])]
        if command == SupervisorCommand.RECOVER:
            return [bytes([wire.RESPONSE | command, supervisor.request_recovery(), not supervisor.crashed])]
        if command == SupervisorCommand.EMERGENCY_STOP:
            supervisor.emergency = True
        else:
            supervisor.feed_emergency_watchdog(self._autopilot.now_ms)
        return []

    def _high_level(self, data: bytes) -> list[bytes]:
        message = wire_commands.decode_high_level(data)
        error = self._pilot.commander.high_level(message, self._autopilot.now_ms)
        # The firmware overwrites the fourth byte of the request with the result and returns four bytes.
        return [(data + b"\0\0")[:3] + bytes([error])]
