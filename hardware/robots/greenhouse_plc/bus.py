"""One Modbus TCP connection: requests as plain lists of numbers, failures as two kinds of error.

`LinkLost` where nobody answers (the caller connects again later), `ModbusRefusal` where the device says no.
"""

import logging
from typing import Any, Protocol

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from hardware.errors import LinkLost
from hardware.robots.greenhouse_plc.wire import ModbusRefusal, Space

RETRIES = 3


class Bus(Protocol):
    """A Modbus device's registers."""

    def connect(self) -> None:
        """Raises LinkLost."""
        ...

    def read(self, space: Space, address: int, count: int) -> list[int]:
        """Registers or bits; raises LinkLost or ModbusRefusal."""
        ...

    def write(self, space: Space, address: int, values: list[int]) -> None:
        """One request; raises LinkLost or ModbusRefusal."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class TcpBus:
    """A `Bus` over pymodbus' client; `timeout_s` is per try, in real time."""

    def __init__(self, host: str, port: int, unit: int, *, timeout_s: float = 1.0, retries: int = RETRIES) -> None:
        self._where, self._unit = f"{host}:{port}", unit
        # pymodbus logs every failure with a dump of the traffic; ours are raised, in one line
        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
        self._client = ModbusTcpClient(host, port=port, timeout=timeout_s, retries=retries)
        self._connected = False

    def connect(self) -> None:
        """See Bus.connect."""
        self._connected = bool(self._client.connect())
        if not self._connected:
            raise LinkLost(f"{self._where}: connection refused or no route")

    def read(self, space: Space, address: int, count: int) -> list[int]:
        """See Bus.read."""
        c = self._client
        ask: Any = {
            "coil": c.read_coils,
            "discrete": c.read_discrete_inputs,
            "input": c.read_input_registers,
            "holding": c.read_holding_registers,
        }[space]
        reply = self._asked(f"read {space} {address}", lambda: ask(address, count=count, device_id=self._unit))
        words = [int(b) for b in reply.bits[:count]] if space in ("coil", "discrete") else list(reply.registers)
        if len(words) != count:
            self.close()
            raise LinkLost(f"{self._where}: asked for {count} of {space} {address}, got {len(words)}")
        return words

    def write(self, space: Space, address: int, values: list[int]) -> None:
        """See Bus.write."""
        c, unit = self._client, self._unit
        what = f"write {space} {address}"
        if space == "coil":
            self._asked(what, lambda: c.write_coil(address, bool(values[0]), device_id=unit))
        elif len(values) == 1:
            self._asked(what, lambda: c.write_register(address, values[0], device_id=unit))
        else:
            self._asked(what, lambda: c.write_registers(address, values, device_id=unit))

    def close(self) -> None:
        """See Bus.close."""
        self._connected = False
        self._client.close()

    def _asked(self, what: str, ask: Any) -> Any:
        if not self._connected:
            raise LinkLost(f"{self._where}: not connected")
        try:
            reply = ask()
        except (ModbusException, OSError) as e:
            self.close()
            raise LinkLost(f"{self._where}: no answer to {what}") from e
        if reply.isError():
            raise ModbusRefusal(getattr(reply, "exception_code", 0), what)
        return reply
