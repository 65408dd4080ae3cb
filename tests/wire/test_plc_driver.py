"""The greenhouse driver against the emulated PLC on a stepped clock: what it writes, when, and what it never writes."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from support.stepped_plc import SteppedBus, make_driver

from hardware.clock import SteppedClock
from hardware.errors import BadInput, LinkLost, RoboError, Unreachable
from hardware.robot import Command
from hardware.robots.greenhouse_plc.driver import Driver
from hardware.robots.greenhouse_plc.emulator import Compartments
from hardware.robots.greenhouse_plc.faults import parse_fault
from hardware.robots.greenhouse_plc.plc import LOCAL, REMOTE_DIRECT, REMOTE_SETPOINTS
from hardware.robots.greenhouse_plc.sensors import Noise

DIRECT = Command("direct", np.array([0.3, 3.0, 60.0]))
SETPOINT = Command("setpoint", np.array([12.0, 22.0, 700.0, 0.85]))


class Bench:
    """A driver, its PLC, and time that passes minute by minute."""

    def __init__(self, *faults: str, write: bool = True) -> None:
        rng = np.random.default_rng(0)
        self.house = Compartments(faults=[parse_fault(f, rng) for f in faults], noise=Noise(0.0, 0.0, 0.0))
        self.clock = SteppedClock(1_000_000_000)
        self.driver, self.bus = make_driver(self.house, self.clock, write=write)
        self.driver.open()
        self.plc = self.house.plcs[0]
        self.words: list[frozenset[str]] = []

    def run(self, seconds: float, step_s: float = 10.0, until: Callable[[], bool] = lambda: False) -> None:
        for _ in range(round(seconds / step_s)):
            self.clock.advance_s(step_s)
            self.words.append(self.driver.read().status)
            if until():
                return


def commands(bus: SteppedBus) -> list[tuple[int, list[int]]]:
    return [(address, values) for _, _, address, values in bus.written if address != 100]


def test_states_carry_what_the_registers_say_in_the_specs_units() -> None:
    b = Bench()
    b.run(600)
    state, truth = b.driver.read(), b.house.plant.signals()
    assert set(state.signals) == set(b.driver.spec.signals)
    for name, half_a_step in (("air_temperature", 0.06), ("relative_humidity", 0.0006), ("co2", 0.6), ("season", 1e-6)):
        np.testing.assert_allclose(state.signals[name], truth[name][0], atol=half_a_step, err_msg=name)
    np.testing.assert_allclose(state.signals["crop_dry_weight"], truth["crop_dry_weight"][0], rtol=1e-6)
    np.testing.assert_allclose(state.signals["forecast"], truth["forecast"][0], rtol=1e-6)
    np.testing.assert_allclose(state.signals["outdoor"], truth["outdoor"][0], atol=0.6)
    assert state.signals["pipe_temperature"] >= state.signals["air_temperature"]
    assert {name: v.shape for name, v in state.signals.items()} == {
        n: s.shape for n, s in b.driver.spec.signals.items()
    }
    age_s = (b.clock.now_ns() - state.t_ns) / 1e9
    assert 0 <= age_s <= 120


def test_a_command_is_written_whole_then_made_valid_then_read_back() -> None:
    b = Bench()
    b.driver.arm()
    b.driver.write(DIRECT)
    b.run(60)
    assert commands(b.bus) == [(101, [2, 0, 0, 0, 0, 0, 0, 0, 0, 400, 400, 250]), (130, [1])]
    assert b.plc.mode == REMOTE_DIRECT
    assert "remote" in b.driver.read().status
    b.driver.write(SETPOINT)
    b.run(60)
    assert commands(b.bus)[2:] == [(101, [1, 120, 220, 700, 850, 0, 0, 0, 0, 0, 0, 0]), (130, [2])]
    assert b.plc.mode == REMOTE_SETPOINTS
    b.run(1800)
    assert len(commands(b.bus)) == 4  # nothing new, nothing written
    b.driver.stop()
    assert b.plc.mode == LOCAL
    assert not b.plc.tripped


def test_changes_within_the_dead_band_are_not_written_but_keep_the_command_in_force() -> None:
    b = Bench()
    b.driver.arm()
    for i in range(4):
        b.driver.write(Command("direct", DIRECT.values + i * np.array([1e-4, 1e-3, 0.02])))
        b.run(1800)
    assert len(commands(b.bus)) == 2
    assert b.plc.mode == REMOTE_DIRECT
    b.driver.write(Command("direct", DIRECT.values + np.array([0.0, 0.0, 0.3])))
    b.run(60)
    assert b.plc.read("holding", 111, 1) == [402]


def test_a_dry_run_writes_nothing_at_all() -> None:
    b = Bench(write=False)
    b.driver.arm()
    b.driver.write(DIRECT)
    b.run(3600)
    b.driver.stop()
    b.driver.close()
    assert b.bus.written == []
    assert "dry_run" in b.words[-1]


def test_the_operators_key_decides() -> None:
    b = Bench("key_off:10m:20m")
    b.driver.arm()
    b.driver.write(DIRECT)
    b.run(900)
    assert b.plc.mode == LOCAL
    assert "command_refused" in b.driver.read().status
    assert b.driver.trouble == "the operator's remote-enable key (coil 0) is off"
    before = len(b.bus.written)
    b.run(600)
    assert len(b.bus.written) == before  # neither commands nor heartbeats
    b.run(400)
    assert b.plc.mode == REMOTE_DIRECT
    off = Bench("key_off:0:1h")
    off.run(60)
    with pytest.raises(RoboError, match=r"cannot be armed: the operator's remote-enable key"):
        off.driver.arm()


def test_a_restarted_plc_gets_its_command_again() -> None:
    b = Bench("restart:20m:5m")
    b.driver.arm()
    b.driver.write(DIRECT)
    b.run(1200)
    b.run(200)
    assert "no_answer" in b.words[-1]
    b.run(220)
    assert b.plc.mode == REMOTE_DIRECT
    assert b.plc.read("holding", 110, 3) == [400, 400, 250]
    assert any("local" in w for w in b.words[-22:])


def test_after_a_lost_network_the_trip_is_acknowledged_and_the_command_in_force_written_again() -> None:
    b = Bench()
    b.driver.arm()
    b.driver.write(DIRECT)
    b.run(600)
    b.bus.cut = True
    b.run(600)
    b.bus.cut = False
    b.run(60, until=lambda: "watchdog_tripped" in b.words[-1])
    assert b.plc.trips == 1
    b.run(60)
    assert b.plc.mode == REMOTE_DIRECT
    assert (1, [1]) in commands(b.bus)


def test_what_has_expired_is_neither_written_nor_kept_alive() -> None:
    """51 min after the last command: the caller has died, whatever this thread still does."""
    b = Bench()
    b.driver.arm()
    b.driver.write(DIRECT)
    b.run(3000)
    assert b.plc.mode == REMOTE_DIRECT
    b.run(3600, until=lambda: b.plc.tripped)
    assert b.plc.tripped
    assert b.plc.now_s == pytest.approx(1.7 * 1800 + 120, abs=30)
    b.run(3600)
    assert len(commands(b.bus)) == 2
    assert b.plc.mode == LOCAL


def test_a_command_from_before_a_long_outage_is_never_written() -> None:
    b = Bench()
    b.driver.arm()
    b.run(60)
    b.bus.cut = True
    b.driver.write(DIRECT)
    b.run(3600)
    b.bus.cut = False
    b.run(600)
    assert commands(b.bus) == []


def test_reconnecting_backs_off_to_half_a_minute() -> None:
    b = Bench()
    tries: list[int] = []
    connect = b.bus.connect
    b.bus.connect = lambda: (tries.append(b.clock.now_ns()), connect())[1]  # type: ignore[method-assign]
    b.bus.cut = True
    b.run(300, step_s=0.5)
    gaps = np.diff(tries) / 1e9
    np.testing.assert_allclose(gaps[:5], [2, 4, 8, 16, 30], atol=1.0)
    np.testing.assert_allclose(gaps[5:], 30, atol=1.0)


def test_a_broken_sensor_lets_the_state_age_and_keeps_its_last_value() -> None:
    b = Bench("drop_temperature:10m:20m")
    b.run(600)
    last = b.driver.read()
    b.run(900)
    state = b.driver.read()
    assert np.isfinite(state.signals["air_temperature"])
    assert (state.t_ns - last.t_ns) / 1e9 < 120
    assert "sensor_fault" in state.status
    b.run(600)
    assert (b.clock.now_ns() - b.driver.read().t_ns) / 1e9 < 130


def test_late_samples_make_an_old_state() -> None:
    b = Bench("delay:10m::300")
    b.run(1800)
    assert (b.clock.now_ns() - b.driver.read().t_ns) / 1e9 == pytest.approx(330, abs=60)


def test_an_actuator_that_does_not_follow_is_named() -> None:
    b = Bench("stuck_vent:0:2h")
    b.driver.arm()
    b.driver.write(DIRECT)
    b.run(1500)
    assert "ventilation_does_not_follow" in b.driver.read().status
    assert not {"heating_does_not_follow", "co2_injection_does_not_follow"} & b.driver.read().status


def test_silence_becomes_a_lost_link() -> None:
    b = Bench()
    b.bus.cut = True
    b.run(5300)
    with pytest.raises(LinkLost, match=r"has been silent for \d+ s: test: no answer"):
        b.run(200)


def test_a_plc_that_takes_no_command_is_told_of_and_asked_again() -> None:
    b = Bench()
    b.driver.arm()
    b.plc.emergency = True
    b.driver.write(DIRECT)
    b.run(30)
    assert re.fullmatch(r"emulated PLC: sequence \d was not accepted; the device holds mode 2", b.driver.trouble)
    assert "command_refused" in b.words[-1]
    b.plc.emergency = False
    b.run(30)
    assert b.driver.trouble == ""
    assert b.plc.mode == REMOTE_DIRECT


def test_writing_needs_arming_and_a_known_mode() -> None:
    b = Bench()
    with pytest.raises(RoboError, match="is not armed: call arm"):
        b.driver.write(DIRECT)
    b.driver.arm()
    with pytest.raises(
        RoboError, match="command mode of robot greenhouse_plc 'dance' not found; known: direct, setpoint"
    ):
        b.driver.write(Command("dance", np.zeros(1)))


def test_nobody_there_is_unreachable() -> None:
    house, clock = Compartments(), SteppedClock(0)
    driver, bus = make_driver(house, clock)
    bus.cut = True
    with pytest.raises(Unreachable, match="an emulated one starts with 'robo-rl emulate greenhouse_plc'"):
        driver.open()
    with pytest.raises(LinkLost, match="is not open"):
        driver.read()
    driver.stop()  # never raises
    driver.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("udp://127.0.0.1:1", "expected modbus://HOST:PORT"),
        ("modbus://:502", "expected modbus://HOST:PORT"),
        ("modbus://h:99999", "expected modbus://HOST:PORT"),
        ("modbus://h?wrte=on", "no option wrte; options: profile, unit, write"),
        ("modbus://h?write=yes", "write 'yes'; expected on or off"),
        ("modbus://h?unit=900", "unit '900'; expected 0..247"),
        ("modbus://h?profile=priva", "register table 'priva' not found; known: agrowtek_sxc, comet_tx5xx, emulated"),
    ],
)
def test_a_wrong_address_is_one_clear_line(address: str, words: str) -> None:
    with pytest.raises(RoboError) as e:
        Driver(address)
    assert words in str(e.value)
    assert "\n" not in str(e.value)
    assert isinstance(e.value, BadInput) or "not found" in str(e.value)
