"""Registers and values of greenhouse controllers: round trips, published examples, garbage, register tables."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client import ModbusTcpClient

from hardware.errors import BadInput, NotFoundError
from hardware.robots.greenhouse_plc.table import (
    MOST,
    Image,
    Register,
    blocks,
    check_against,
    load_table,
    parse_table,
    profile_names,
)
from hardware.robots.greenhouse_plc.wire import (
    WORDS,
    ModbusRefusal,
    Status,
    check_word_order,
    decode,
    encode,
    from_manual,
    status_words,
)
from hardware.spec import load_spec

SPEC = load_spec("greenhouse_plc")
KINDS = st.sampled_from(sorted(WORDS))
ORDERS = st.sampled_from(["big", "little"])
LIMITS = {"u16": (0, 65535), "i16": (-32768, 32767), "u32": (0, 2**32 - 1)}


@given(st.data(), KINDS, ORDERS)
def test_numbers_come_back_from_their_registers(data: st.DataObject, kind: str, order: str) -> None:
    number = float(
        data.draw(
            st.floats(width=32, allow_nan=False, allow_infinity=False) if kind == "f32" else st.integers(*LIMITS[kind])
        )
    )
    registers = encode(number, kind, order)  # type: ignore[arg-type]
    assert len(registers) == WORDS[kind]
    assert all(0 <= r <= 0xFFFF for r in registers)
    assert decode(registers, kind, order) == number  # type: ignore[arg-type]


@given(KINDS, ORDERS, st.floats())
def test_what_does_not_fit_is_refused_and_never_wraps(kind: str, order: str, number: float) -> None:
    fits = math.isfinite(number) and kind != "f32" and LIMITS[kind][0] <= round(number) <= LIMITS[kind][1]
    if kind == "f32":
        fits = abs(number) < 3.4028235677973366e38  # half a step above the largest float32; false for NaN
    if not fits:
        with pytest.raises(BadInput, match=r"not fi(nite|t)"):
            encode(number, kind, order)  # type: ignore[arg-type]
        return
    registers = encode(number, kind, order)  # type: ignore[arg-type]
    back = decode(registers, kind, order)  # type: ignore[arg-type]
    nearest = struct.unpack("f", struct.pack("f", number))[0] if kind == "f32" else round(number)
    assert back == nearest


def test_floats_are_those_of_a_third_party_and_of_the_published_example() -> None:
    assert encode(18.53, "f32") == [16788, 15729]  # as measured with pymodbus
    convert = ModbusTcpClient.convert_to_registers
    for value in (0.0, -1.5, 1234.5, 6.02e23):
        assert encode(value, "f32") == convert(value, ModbusTcpClient.DATATYPE.FLOAT32)
    assert encode(123456, "u32") == convert(123456, ModbusTcpClient.DATATYPE.UINT32)
    assert encode(-123, "i16") == convert(-123, ModbusTcpClient.DATATYPE.INT16)


@pytest.mark.parametrize(
    ("number", "place"),
    [
        (1, ("coil", 0)),
        (10007, ("discrete", 6)),
        (30011, ("input", 10)),
        (40021, ("holding", 20)),
        (400101, ("holding", 100)),
        (365536, ("input", 65535)),
    ],
)
def test_numbers_of_manuals_become_addresses(number: int, place: tuple[str, int]) -> None:
    assert from_manual(number) == place


@pytest.mark.parametrize("number", [0, 20001, 30000, 50001, 465537])
def test_other_numbers_are_no_registers(number: int) -> None:
    with pytest.raises(BadInput, match=f"manual register {number}; expected"):
        from_manual(number)


def test_a_wrong_word_order_is_told_from_a_wrong_map() -> None:
    right = encode(1234.5, "f32")
    check_word_order(right, "big", 1234.5, "input register 90")
    with pytest.raises(
        BadInput, match=r"input register 90 holds 1234\.5 in word order 'little', not 'big': set word_ord"
    ):
        check_word_order(right[::-1], "big", 1234.5, "input register 90")
    with pytest.raises(BadInput, match=r"holds 0x0000 0x0007, not 1234\.5: wrong register map or unit id"):
        check_word_order([0, 7], "big", 1234.5, "input register 90")


def test_status_bits_have_words() -> None:
    assert status_words(0) == frozenset()
    assert status_words(Status.WATCHDOG | Status.LOCAL) == {"watchdog_tripped", "local"}
    assert len(status_words(0x7F)) == 7
    assert str(ModbusRefusal(2, "read input 400")) == "read input 400: illegal address (exception 2)"
    assert "unknown (exception 77)" in str(ModbusRefusal(77))


@given(st.lists(st.tuples(st.integers(0, 400), KINDS, st.integers(1, 20)), max_size=12))
def test_requests_cover_every_register_and_stay_within_the_protocol(parts: list[tuple[int, str, int]]) -> None:
    registers = [Register("input", a, k, count=n) for a, k, n in parts]  # type: ignore[arg-type]
    asked = blocks(registers)
    assert all(1 <= count <= max(MOST, 40) for _, _, count in asked)
    covered = {a for _, start, count in asked for a in range(start, start + count)}
    assert {r.address + i for r in registers for i in range(r.size)} <= covered


def test_a_broken_sensor_is_nan_for_every_type() -> None:
    assert math.isnan(Register("input", 0, "i16", scale=0.1, bad=0x8000).values([0x8000])[0])
    assert math.isnan(Register("input", 0, "u16", bad=0x8000).values([0x8000])[0])
    assert math.isnan(Register("input", 0, "f32", bad=9999.0).values(encode(9999.0, "f32"))[0])
    assert Register("input", 0, "i16", scale=0.1, offset=1.0).values([0xFFFB]) == [0.5]


def test_written_values_are_held_within_the_tables_bounds() -> None:
    r = Register("holding", 0, "u16", scale=0.1, low=5.0, high=30.0)
    assert [r.registers(v)[0] for v in (-3.0, 5.04, 18.0, 99.0)] == [50, 50, 180, 300]
    with pytest.raises(BadInput, match="not finite"):
        r.registers(math.nan)


@pytest.mark.parametrize("name", profile_names())
def test_shipped_tables_fit_the_robot_and_name_their_source(name: str) -> None:
    table = load_table(name)
    check_against(table, SPEC)
    assert table.polled
    if name != "emulated":
        folder = Path(__file__).parents[2] / "hardware/robots/greenhouse_plc/profiles"
        assert "# Source:" in (folder / f"{name}.toml").read_text()


def test_published_addresses_stand_in_the_profiles() -> None:
    comet, agrowtek, sentera = (load_table(n) for n in ("comet_tx5xx", "agrowtek_sxc", "sentera_rdcv"))
    assert (comet.read["air_temperature"][0].address, comet.read["relative_humidity"][0].address) == (0x30, 0x31)
    assert [r.address for s in ("air_temperature", "relative_humidity", "co2") for r in agrowtek.read[s]] == [
        200,
        202,
        206,
    ]
    set_points = sentera.write["setpoint"]
    assert [set_points[n].address for n in ("ventilation_temperature", "co2", "humidity_max")] == [21, 22, 25]
    assert set_points["ventilation_temperature"].registers(20.0) == [200]


TABLE = {"name": "t", "timing": {"read_s": 60.0, "silence_s": 600.0}}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"read": {"co2": [{"input": 1, "type": "u8"}]}}, "read.co2: type 'u8'; expected one of u16"),
        ({"read": {"co2": [{"input": 1, "coil": 1}]}}, "read.co2: give one of coil"),
        ({"read": {"co2": [{"input": -1}]}}, "read.co2: address -1 is not a whole number"),
        ({"read": {"co2": [{"input": 70000}]}}, "do not fit into 65536"),
        ({"read": {"co2": [{"manual": 20001}]}}, "manual register 20001"),
        ({"read": {"co2": [{"input": 1, "sale": 2}]}}, "read.co2 has unknown entries sale"),
        ({"read": {"co2": [{"input": 1, "scale": 0.0}]}}, "scale 0.0"),
        ({"read": {"co2": [{"input": 1, "min": 2, "max": 1}]}}, "min 2 is above max 1"),
        ({"word_order": "middle"}, "word_order 'middle'; expected one of big, little"),
        ({"timing": {"read_s": 1.0}}, "entry 'silence_s' is missing"),
        ({"control": {"mode": {"holding": 1, "direct": 2}}}, "control.mode needs the number of mode 'local'"),
        ({"reed": {}}, "unknown entries reed"),
    ],
)
def test_a_wrong_table_is_one_clear_line(entries: dict, words: str) -> None:
    with pytest.raises(BadInput) as e:
        parse_table({**TABLE, **entries}, source="my.toml")
    assert str(e.value).startswith("my.toml: ")
    assert words in str(e.value)
    assert "\n" not in str(e.value)


def test_a_table_for_another_robot_is_refused(tmp_path: Path) -> None:
    for read, words in (
        ({"soil": [{"input": 1}]}, "no signal 'soil'; signals: air_temperature"),
        ({"season": [{"input": 1}]}, "season has 1 parts; expected 3"),
    ):
        with pytest.raises(BadInput, match=words):
            check_against(parse_table({**TABLE, "read": read}, source="t"), SPEC)
    with pytest.raises(BadInput, match="mode direct has no component lamp"):
        check_against(parse_table({**TABLE, "write": {"direct": {"lamp": {"holding": 1}}}}, source="t"), SPEC)
    with pytest.raises(NotFoundError, match="register table 'privaa' not found; known: agrowtek_sxc, comet_tx5xx"):
        load_table("privaa")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(BadInput, match="not a register table"):
        load_table(str(tmp_path / "bad.toml"))


def test_an_image_gives_vectors_in_the_tables_order() -> None:
    image = Image()
    image.put("input", 10, [185, 700, 0x8000])
    parts = [Register("input", 11, "u16", scale=0.001), Register("input", 10, "i16", scale=0.1)]
    np.testing.assert_allclose(image.values(parts), [0.7, 18.5])
