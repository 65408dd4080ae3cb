"""The emulated PLC's program in plant time: acceptance, watchdog, interlocks in every mode, sensors, restart."""

import numpy as np
import pytest

from hardware.robots.greenhouse_plc import climate
from hardware.robots.greenhouse_plc.emulator import Compartments
from hardware.robots.greenhouse_plc.faults import FAULTS, parse_fault
from hardware.robots.greenhouse_plc.plc import LOCAL, REMOTE_DIRECT, REMOTE_SETPOINTS, SCAN_S, Plc
from hardware.robots.greenhouse_plc.sensors import Noise
from hardware.robots.greenhouse_plc.wire import BAD_SENSOR, ModbusRefusal, Status, decode

SILENT = Noise(0.0, 0.0, 0.0)
RNG = np.random.default_rng(0)


def truth(
    temperature: float = 15.0, co2: float = 600.0, wind: float = 3.0, radiation: float = 200.0
) -> dict[str, np.ndarray]:
    return {
        "air_temperature": np.array(temperature),
        "relative_humidity": np.array(0.8),
        "co2": np.array(co2),
        "crop_dry_weight": np.array(0.1),
        "outdoor": np.array([radiation, 5.0, 0.85, 410.0, wind]),
        "forecast": np.arange(52.0),
        "season": np.array([0.0, 1.0, 0.25]),
    }


def make_plc(**world: float) -> Plc:
    plc = Plc(noise=SILENT)
    plc.sample(truth(**world))
    return plc


def block(
    mode: int, vent: int = 0, heat: int = 0, co2: int = 0, points: tuple[int, ...] = (150, 200, 700, 850)
) -> list[int]:
    return [mode, *points, 0, 0, 0, 0, vent, heat, co2]


def command(plc: Plc, words: list[int], sequence: int) -> int:
    plc.write("holding", 101, words)
    plc.write("holding", 130, [sequence])
    return plc.read("holding", 131, 1)[0]


def run(plc: Plc, seconds: float, *, beat: bool = True) -> None:
    for i in range(round(seconds / SCAN_S)):
        if beat and i % 2 == 0:
            plc.write("holding", 100, [plc.read("holding", 100, 1)[0] % 65535 + 1])
        plc.scan()


def test_the_map_shows_the_world_in_the_published_scaling() -> None:
    plc = make_plc(temperature=-1.5, co2=612.4, wind=4.25)
    image = plc.read("input", 0, 304)
    assert decode(image[10:11], "i16") == -15
    assert image[11:13] == [800, 612]
    assert image[13:18] == [50, 850, 200, 42, 410]
    assert decode(image[40:42], "f32") == pytest.approx(0.1)
    assert [decode(image[a : a + 2], "f32") for a in (42, 44, 46)] == [0.0, 1.0, 0.25]
    assert [decode(image[200 + 2 * i : 202 + 2 * i], "f32") for i in (0, 51)] == [0.0, 51.0]
    assert decode(image[90:92], "f32") == 1234.5
    assert image[30:34] == [0, 0, 0, 0]
    plc.scan()
    assert plc.read("discrete", 0, 7) == [0, 1, 0, 1, 0, 0, 0]  # local and frost, as in register 0
    assert plc.read("input", 0, 1) == [Status.LOCAL | Status.FROST]


@pytest.mark.parametrize(
    ("space", "address", "count"),
    [("input", 300, 9), ("holding", 131, 2), ("coil", 3, 1), ("discrete", 7, 1), ("input", 0, 0)],
)
def test_beyond_the_map_is_an_illegal_address(space: str, address: int, count: int) -> None:
    with pytest.raises(ModbusRefusal) as e:
        make_plc().read(space, address, count)  # type: ignore[arg-type]
    assert e.value.code == 2


@pytest.mark.parametrize(
    ("space", "address"),
    [("input", 10), ("discrete", 0), ("holding", 131), ("holding", 0), ("holding", 99), ("coil", 0), ("coil", 3)],
)
def test_what_only_the_plc_or_its_operator_sets_cannot_be_written(space: str, address: int) -> None:
    with pytest.raises(ModbusRefusal) as e:
        make_plc().write(space, address, [1])  # type: ignore[arg-type]
    assert e.value.code == 2


def test_only_a_complete_sequence_is_accepted() -> None:
    plc = make_plc()
    assert command(plc, block(REMOTE_DIRECT, vent=300), 7) == 7
    assert plc.mode == REMOTE_DIRECT
    plc.write("holding", 110, [500])  # a part of a command is none
    plc.write("holding", 130, [8])
    assert plc.read("holding", 131, 1) == [7]
    plc.write("holding", 101, block(REMOTE_DIRECT, vent=500))
    plc.write("holding", 102, [100])  # spoils what was staged
    plc.write("holding", 130, [9])
    assert plc.read("holding", 131, 1) == [7]
    assert command(plc, block(REMOTE_DIRECT, vent=500), 7) == 7  # the same number again says nothing new
    run(plc, 600)
    assert plc.actual.vent == pytest.approx(0.3)
    assert command(plc, block(REMOTE_DIRECT, vent=500), 10) == 10
    run(plc, 600)
    assert plc.actual.vent == pytest.approx(0.5)


def test_out_of_range_is_clipped_and_told_or_refused_where_strict() -> None:
    plc = make_plc()
    command(plc, block(REMOTE_DIRECT, vent=1500, heat=200), 1)
    assert plc.read("holding", 110, 2) == [1000, 200]
    assert plc.status & Status.CLIPPED
    command(plc, block(REMOTE_DIRECT, vent=900), 2)
    assert not plc.status & Status.CLIPPED
    strict = Plc(strict=True, noise=SILENT)
    with pytest.raises(ModbusRefusal, match="110 = 1500: illegal value") as e:
        strict.write("holding", 101, block(REMOTE_DIRECT, vent=1500))
    assert e.value.code == 3
    with pytest.raises(ModbusRefusal):  # no plant has a mode 3, strict or not
        plc.write("holding", 101, block(3))


def test_the_watchdog_trips_after_two_minutes_without_a_heartbeat_and_stays_tripped() -> None:
    plc = make_plc(temperature=12.0)
    command(plc, block(REMOTE_DIRECT, vent=400, heat=300), 1)
    run(plc, 3600)
    assert plc.mode == REMOTE_DIRECT
    since = plc.now_s
    while not plc.tripped:
        plc.write("holding", 100, [plc.read("holding", 100, 1)[0]])  # unchanged: no heartbeat
        plc.scan()
    assert 110 <= plc.now_s - since <= 130
    assert plc.mode == LOCAL
    assert plc.status & Status.WATCHDOG
    assert command(plc, block(REMOTE_DIRECT, vent=400), 2) == 1  # latched: refused, heartbeat or not
    run(plc, 1800)
    assert plc.status & Status.WATCHDOG
    assert plc.actual.vent == pytest.approx(0.0, abs=1e-9)  # fail-safe set points: 12 degC needs neither vents nor heat
    assert plc.actual.heat == pytest.approx(0.0, abs=0.01)
    plc.write("coil", 1, [1])
    assert not plc.status & Status.WATCHDOG
    assert command(plc, block(REMOTE_DIRECT, vent=400), 3) == 3
    assert plc.trips == 1


def test_local_mode_needs_no_heartbeat() -> None:
    plc = make_plc()
    run(plc, 3600, beat=False)
    assert not plc.tripped


def test_the_operators_key_ends_remote_control() -> None:
    plc = make_plc()
    command(plc, block(REMOTE_DIRECT), 1)
    plc.enabled = False
    plc.scan()
    assert plc.mode == LOCAL
    assert command(plc, block(REMOTE_DIRECT), 2) == 1
    assert command(plc, block(LOCAL), 3) == 3  # giving it back is always allowed


@pytest.mark.parametrize("mode", [LOCAL, REMOTE_SETPOINTS, REMOTE_DIRECT])
@pytest.mark.parametrize(
    ("world", "bit", "obeyed"),
    [
        ({"temperature": 2.9}, Status.FROST, lambda o: o.heat == 1.0),
        ({"temperature": 35.1}, Status.OVERHEAT, lambda o: o.vent == 1.0),
        ({"co2": 1801.0}, Status.CO2_HIGH, lambda o: o.co2 == 0.0),
        ({"temperature": 36.0, "wind": 15.1}, Status.OVERHEAT, lambda o: o.vent <= 0.1),
    ],
)
def test_interlocks_act_in_every_mode(mode: int, world: dict[str, float], bit: Status, obeyed) -> None:
    """Against a command that wants the opposite."""
    plc = make_plc(**world)
    cold = world.get("temperature", 15.0) < 10.0
    command(plc, block(mode, vent=600 if cold or "wind" in world else 0, heat=0, co2=1000), 1)
    plc.scan()
    assert plc.mode == mode
    assert plc.status & bit
    assert obeyed(plc.wanted)
    run(plc, 1800)
    assert obeyed(climate.Outputs(*(round(x, 2) for x in plc.actual)))


def test_interlocks_let_go_inside_their_limits() -> None:
    plc = make_plc(temperature=3.1, co2=1799.0, wind=14.9)
    command(plc, block(REMOTE_DIRECT, vent=600, heat=0, co2=1000), 1)
    plc.scan()
    assert plc.wanted == climate.Outputs(0.6, 0.0, 1.0)


def test_without_a_co2_reading_nothing_is_dosed() -> None:
    plc = make_plc()
    command(plc, block(REMOTE_DIRECT, co2=1000), 1)
    plc.samples.broken.add("co2")
    plc.sample(truth())
    plc.scan()
    assert plc.wanted.co2 == 0.0
    assert plc.read("input", 12, 1) == [BAD_SENSOR]
    assert plc.status & Status.SENSOR_FAULT


def test_set_point_controllers_heat_cold_air_vent_warm_or_moist_air_and_dose_in_light() -> None:
    points = climate.Setpoints(heating=15.0, ventilation=20.0, co2=800.0, humidity_max=0.85)
    off = climate.Outputs(0.0, 0.0, 0.0)
    sensed = climate.Sensed(14.0, 0.8, 600.0, 200.0, 3.0)
    assert climate.follow(points, sensed, off) == climate.Outputs(0.0, 0.5, 1.0)
    assert climate.follow(points, sensed._replace(temperature=22.0), off).vent == pytest.approx(0.5)
    assert climate.follow(points, sensed._replace(humidity=0.95), off).vent == pytest.approx(0.5)
    assert climate.follow(points, sensed._replace(radiation=0.0), off).co2 == 0.0
    assert climate.follow(points._replace(co2=0.0), sensed, off).co2 == 0.0
    broken = climate.follow(points, sensed._replace(temperature=np.nan), climate.Outputs(0.3, 0.4, 0.5))
    assert (broken.vent, broken.heat) == (0.3, 0.4)


def test_the_emergency_stop_ends_dosing_and_heating_until_it_is_released() -> None:
    plc = make_plc(temperature=2.0)
    command(plc, block(REMOTE_DIRECT, vent=500, heat=500, co2=500), 1)
    run(plc, 600)
    vent = plc.actual.vent
    plc.write("coil", 2, [1])
    run(plc, 3600)
    assert plc.actual.vent == vent
    assert plc.actual.heat < 0.01
    assert plc.actual.co2 == 0.0
    assert command(plc, block(REMOTE_DIRECT), 2) == 1
    plc.write("coil", 2, [0])
    assert command(plc, block(REMOTE_DIRECT), 3) == 3


def test_actuators_take_their_time_and_meters_count_what_was_used() -> None:
    plc = make_plc()
    command(plc, block(REMOTE_DIRECT, vent=1000, heat=1000, co2=1000), 1)
    run(plc, 90)
    assert plc.actual.vent == pytest.approx(0.5, abs=0.03)
    run(plc, 7200 - 90)
    image = plc.read("input", 24, 4)
    # 1000 m2: 150 W/m2 for 2 h less the pipes' lag of 300 s, and 1.2 mg/m2/s for 2 h.
    assert decode(image[:2], "u32") == pytest.approx(10 * 150 * (7200 - 300) / 3600, rel=0.01)
    assert decode(image[2:], "u32") == pytest.approx(1.2 * 7200, rel=0.01)


def test_a_restart_forgets_commands_and_keeps_meters() -> None:
    plc = make_plc()
    command(plc, block(REMOTE_DIRECT, heat=1000), 5)
    run(plc, 3600)
    used = plc.counters
    plc.restart()
    assert plc.read("input", 1, 1) == [0]
    assert plc.read("holding", 131, 1) == [0]
    assert plc.mode == LOCAL
    assert plc.counters == used


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_strikes_shows_and_ends(name: str) -> None:
    """Against an undisturbed twin: something the client can see differs while it lasts."""
    fault = parse_fault(f"{name}:30m:30m" if np.isfinite(FAULTS[name].duration_s) else f"{name}:30m", RNG)
    house, twin = (Compartments(faults=f, noise=SILENT) for f in ([fault], []))
    seen = 0
    for minute in range(75):
        for h in (house, twin):
            plc = h.plcs[0]
            if minute % 10 == 0 and not h.lines[0].off:
                words = block(
                    REMOTE_DIRECT,
                    vent=200 + 50 * (minute // 20),
                    heat=300 + 50 * (minute // 10),
                    co2=100 * (minute // 10),
                )
                plc.write("coil", 1, [1])
                command(plc, words, minute + 1)
            if not h.lines[0].off:
                plc.write("holding", 100, [minute + 1])
            h.advance(60)
        differs = house.plcs[0].read("input", 0, 304) != twin.plcs[0].read("input", 0, 304)
        unreachable = house.lines[0].off or house.lines[0].silent
        if minute < 29:
            assert not differs, minute
            assert not unreachable
        seen += differs or unreachable
    assert seen > 0
    if np.isfinite(fault.until_s):
        broken = house.plcs[0].samples.broken | house.plcs[0].stuck
        assert (house.lines[0].off, house.lines[0].silent, broken) == (False, False, set())
        assert house.plcs[0].enabled


def test_stuck_vents_stay_and_obey_again_afterwards() -> None:
    house = Compartments(faults=[parse_fault("stuck_vent:10m:30m", RNG)], noise=SILENT)
    plc = house.plcs[0]
    command(plc, block(REMOTE_DIRECT, vent=200), 1)
    for _ in range(9):
        plc.write("holding", 100, [plc.holding[100] + 1])
        house.advance(60)
    command(plc, block(REMOTE_DIRECT, vent=800), 2)
    for minute in range(40):
        plc.write("holding", 100, [plc.holding[100] + 1])
        house.advance(60)
        if minute == 25:
            assert plc.actual.vent < 0.6  # stuck on the way up
    assert plc.actual.vent == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("meteor:1h", "fault of robot greenhouse_plc 'meteor' not found; known: dead_connection"),
        ("restart:soon", r"fault 'restart:soon' is not name\[:at"),
        ("restart:1h:2m:0:9", "is not name"),
        ("storm:1h:1h:99", "within 0..60"),
        ("storm:1h:1h:nan", "within 0..60"),
        ("storm:-1h", "is not name"),
    ],
)
def test_a_wrong_fault_is_one_clear_line(text: str, words: str) -> None:
    from hardware.errors import RoboError

    with pytest.raises(RoboError, match=words):
        parse_fault(text, RNG)


def test_faults_take_ranges_and_units_of_time() -> None:
    f = parse_fault("delay:1d..2d:90m:120", np.random.default_rng(3))
    assert 86400 <= f.at_s <= 172800
    assert f.until_s - f.at_s == pytest.approx(5400)
    assert f.value == 120
