"""Weather: readers against files written by hand, complaints with row and column, the generator against its normals."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from greenhouse_case import reference

from hardware.errors import BadInput, NotFoundError
from sim.dynamics import greenhouse as model
from sim.scenes.greenhouse.weather import catalogue, readers
from sim.scenes.greenhouse.weather.bank import LEADS, make_bank
from sim.scenes.greenhouse.weather.series import Series
from sim.scenes.greenhouse.weather.synthetic import CLIMATES, generate

HEADER = "time_utc,radiation [W/m2],temperature [degC],humidity [%],co2 [ppm],wind [m/s]"
HOURS = [f"2020-03-01T{h:02d}:00:00,{100 * h},{h / 2},80,{400 + h},3" for h in range(8)]


def written(tmp_path: Path, text: str, name: str = "weather.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def test_own_csv_is_read_in_canonical_units(tmp_path: Path) -> None:
    series = readers.read(written(tmp_path, "\n".join([HEADER, *HOURS])))
    assert (series.step_s, series.filled, len(series.values)) == (3600.0, 0, 8)
    assert series.begins == np.datetime64("2020-03-01T00:00:00", "ms")
    assert series.values[3].tolist() == pytest.approx([300.0, 1.5, 0.8, 403.0, 3.0])
    assert series.at(np.array([1800.0]))[0].tolist() == pytest.approx([50.0, 0.25, 0.8, 400.5, 3.0])
    assert series.day_of_year(np.array([0.0, 43200.0])).tolist() == [61.0, 61.5]


def test_a_written_series_is_read_back(tmp_path: Path) -> None:
    series = generate("netherlands", 4, days=3)
    readers.write_csv(tmp_path / "out.csv", series)
    again = readers.read(tmp_path / "out.csv")
    assert again.begins == series.begins
    assert np.allclose(again.values, series.values, rtol=1e-5, atol=1e-5)


def test_vapour_may_stand_for_humidity_and_co2_may_be_missing(tmp_path: Path) -> None:
    rows = [f"2020-03-01T0{h}:00:00,0,20,0.00866" for h in range(3)]
    series = readers.read(written(tmp_path, "\n".join(["time_utc,radiation,temperature,vapour [kg/m3]", *rows])))
    assert series.values[0, 2] == pytest.approx(0.5, abs=5e-3)  # half of the 17.3 g/m3 that saturate air at 20 degC
    assert series.values[:, 3].tolist() == [420.0] * 3


def test_short_gaps_are_filled_and_counted(tmp_path: Path) -> None:
    rows = [r for i, r in enumerate(HOURS) if i not in (2, 3)]
    rows[3] = rows[3].replace(",80,", ",,")
    series = readers.read(written(tmp_path, "\n".join([HEADER, *rows])))
    assert series.filled == 3
    assert series.values[2:4, 0].tolist() == pytest.approx([200.0, 300.0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (HOURS[3], HOURS[3].replace(",1.5,", ",99,"), r"row 5, column temperature: 99 is not between -60 and 60"),
        (HOURS[3], HOURS[3].replace("300", "-50"), r"row 5, column radiation: -50 is not between 0 and 1500"),
        (HOURS[3], HOURS[3].replace(",80,", ",0.00002,"), r"row 5, column humidity: 2e-07 is not between 0.02 and 1"),
        (HOURS[3], HOURS[3].replace(",80,", ",8000,"), r"column humidity: 80 .*is it in percent\?"),
        (HOURS[3], HOURS[3].replace("300", "many"), r"row 5, column radiation: 'many' is not a number"),
        (HOURS[3], HOURS[3] + ",7", r"row 5: 7 values; expected 6"),
        (HOURS[3], HOURS[3].replace("T03", "T01"), r"row 5, column time: does not come after the row before it"),
        (HOURS[3], HOURS[3].replace("2020-03", "2020-13"), r"row 5, column time: '2020-13.*is not an instant"),
        ("[degC]", "[K]", r"row 1, column temperature: unit K; expected degC"),
        ("radiation [W/m2]", "sun", r"row 1: column 'sun' not known; columns: time_utc, radiation"),
        (",wind [m/s]", ",co2", r"row 1: lacks column names that differ"),
        ("\n".join(HOURS[2:6]) + "\n", "", r"row 4, column radiation: no value for 5.0 h; gaps of at most 3 h"),
        ("\n".join(HOURS), HOURS[0], r"1 rows; expected at least two"),
        ("\n".join(HOURS), "", r"expected at least two"),
    ],
)
def test_bad_files_are_refused_in_one_line_that_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = "\n".join([HEADER, *HOURS])
    assert old in text
    with pytest.raises(BadInput, match=message) as caught:
        readers.read(written(tmp_path, text.replace(old, new)))
    assert "weather.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_not_known_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no such weather file"):
        readers.read(tmp_path / "none.csv")
    with pytest.raises(BadInput, match=r"weather files end in \.csv, \.npz, \.epw, \.tm2, \.txt"):
        readers.read(written(tmp_path, "", "weather.xlsx"))
    with pytest.raises(NotFoundError, match=r"weather 'sunny' not found; known: .*bleiswijk-2014.*synthetic"):
        catalogue.load("sunny", "train")
    with pytest.raises(NotFoundError, match=r"weather split 'tset' not found; known: shift, test, train, validation"):
        catalogue.load("synthetic", "tset")


KNMI = """# BRON: KONINKLIJK NEDERLANDS METEOROLOGISCH INSTITUUT (KNMI)
# STN,YYYYMMDD,   HH,   DD,   FH,    T,    Q,    U
  260,20140209,    1,  210,   40,   62,    0,   91
  260,20140209,    2,  210,   50,   -5,   36,   85
  260,20140209,    3,  210,   30,   70,   72,   80
"""


def test_knmi_hours_end_at_their_number_and_come_in_tenths(tmp_path: Path) -> None:
    series = readers.read(written(tmp_path, KNMI, "uurgeg.txt"))
    assert series.begins == np.datetime64("2014-02-09T01:00:00", "ms")
    assert series.values[:, 1].tolist() == pytest.approx([6.2, -0.5, 7.0])
    assert series.values[:, 4].tolist() == pytest.approx([4.0, 5.0, 3.0])
    # 36 J/cm2 in the hour that ends at 2 are 100 W/m2 from 1 to 2, whole: means are not interpolated.
    assert series.at(np.array([0.0, 1800.0, 3600.0]))[:, 0].tolist() == pytest.approx([100.0, 100.0, 200.0])
    with pytest.raises(BadInput, match=r"not an hourly file of KNMI: lacks column Q"):
        readers.read(written(tmp_path, KNMI.replace("   Q", "   R"), "uurgeg.txt"))
    with pytest.raises(BadInput, match=r"row 4, column T: 'warm' is not a number"):
        readers.read(written(tmp_path, KNMI.replace("   -5", " warm"), "uurgeg.txt"))


def test_epw_rows_begin_their_hours_in_local_time(tmp_path: Path) -> None:
    needs("pvlib")
    head = ["LOCATION,De Bilt,-,NLD,IWEC,062600,52.10,5.18,1.0,4.0"] + [f"LINE {i},0" for i in range(7)]
    rows = []
    for h in range(1, 25):
        cells = ["2001", "1", "1", str(h), "0", "?9", f"{h / 10}", "1", "85", "101300", "0", "0", "300", str(10 * h)]
        rows.append(",".join(cells + ["0"] * 7 + ["4.5"] + ["0"] * 13))
    series = readers.read(written(tmp_path, "\n".join([*head, *rows]), "bilt.epw"))
    assert series.begins == np.datetime64("2000-12-31T23:00:00", "ms"), "UTC+1"
    assert series.values[:2, 0].tolist() == [10.0, 20.0]
    assert series.values[0].tolist() == pytest.approx([10.0, 0.1, 0.85, 420.0, 4.5])
    with pytest.raises(BadInput, match=r"broken.epw: pvlib's read_epw cannot read it"):
        readers.read(written(tmp_path, "rubbish", "broken.epw"))


def test_typical_years_of_pvlib_are_read() -> None:
    needs("pvlib")
    sand_point, greensboro = catalogue.load("measured", "shift")
    (miami,) = catalogue.load("miami", "train")
    # Line 14 of the file: 12:00 local (UTC-9), 30 W/m2 in the hour before, 6.0 degC, 81 %.
    noon = sand_point.at(np.array([11 * 3600.0, 10 * 3600.0]))
    assert sand_point.begins == np.datetime64("2001-01-01T10:00:00", "ms")
    assert noon[0, 1:3].tolist() == pytest.approx([6.0, 0.81])
    assert noon[1, 0] == 30.0
    for series, mean_c in ((sand_point, 4.4), (greensboro, 14.4), (miami, 24.3)):
        assert len(series.values) == 8760
        assert series.values[:, 1].mean() == pytest.approx(mean_c, abs=0.1)


def test_missing_packages_are_named_with_their_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    catalogue._measured.cache_clear()
    with pytest.raises(BadInput, match=r"weather of gl_gym is not installed; pip install --no-deps gl-gym"):
        catalogue.load("measured", "train")
    with pytest.raises(BadInput, match=r"lettuce_greenhouse_gym is not installed; pip install --no-deps lettuce"):
        catalogue.load("measured", "test")


def test_splits_share_no_year() -> None:
    for table in (catalogue._SYNTHETIC, catalogue._MEASURED):
        assert tuple(table) == catalogue.SPLITS
        years = [year for split in table.values() for year in split]
        assert len(set(years)) == len(years)


def test_standard_season_is_the_packages_weather() -> None:
    needs("lettuce_greenhouse_gym")
    years = catalogue.load("measured", "test")
    bank = make_bank(years, step_s=1800.0, season_steps=1920, start_days=(40.0, 40.0))
    (row,) = bank.starts.tolist()
    got, wanted = bank.disturbance[row : row + 1920].double().numpy(), reference()["weather"]
    assert np.allclose(got, wanted, rtol=1e-6, atol=1e-6)


def test_generated_years_follow_the_normals_of_their_climate() -> None:
    years = [generate("netherlands", seed, days=365) for seed in range(20, 26)]
    climate = CLIMATES["netherlands"]
    values = np.stack([y.values[:-1] for y in years])
    month = (np.arange(values.shape[1]) * 12 // values.shape[1]).astype(int)
    for m in range(12):
        radiation, temperature, humidity, *_ = values[:, month == m].mean((0, 1))
        assert radiation == pytest.approx(climate.radiation[m], rel=0.2), m
        assert temperature == pytest.approx(climate.temperature[m], abs=1.6), m
        assert humidity == pytest.approx(climate.humidity[m], abs=0.06), m
    daily = values[..., 1].reshape(6, 365, -1).mean(2)
    daily = daily - daily.mean(0)
    assert 2.0 < daily.std() < 4.5
    assert 0.55 < np.corrcoef(daily[:, 1:].ravel(), daily[:, :-1].ravel())[0, 1] < 0.9, "weather lasts for days"
    midnight = values[:, ::96]
    assert (midnight[..., 0] == 0.0).all()
    assert (values[..., 2] <= 1.0).all()
    assert 400 < values[..., 3].mean() < 460


def test_generated_years_repeat_and_differ() -> None:
    assert np.array_equal(generate("north", 5, days=2).values, generate("north", 5, days=2).values)
    assert not np.array_equal(generate("north", 5, days=2).values, generate("north", 6, days=2).values)
    with pytest.raises(NotFoundError, match="climate 'moon' not found; known: netherlands, north, south"):
        generate("moon", 0)


def test_the_bundled_year_is_the_generators_first() -> None:
    (stored,) = catalogue.load("bundled", "train")
    made = generate("netherlands", 0)
    assert (stored.step_s, stored.begins) == (made.step_s, made.begins)
    assert (np.abs(stored.values - made.values) <= 0.51 * np.array(readers.STORED_UNITS)).all()
    assert catalogue.BUNDLED.stat().st_size < 400_000


def test_bank_holds_forecasts_clocks_and_densities() -> None:
    year = generate("netherlands", 1, days=60)
    bank = make_bank([year, year], step_s=900.0, season_steps=960, start_days=(10.0, 12.0))
    assert bank.starts.tolist() == [864, 960, 1056, 864 + 5761, 960 + 5761, 1056 + 5761]
    row = 900
    forecast = bank.windows[row].reshape(LEADS, 4)
    assert torch.equal(forecast, bank.signals[row : row + 25 : 2]), "a lead is half an hour, two steps of 15 min"
    assert torch.allclose(bank.clock[bank.starts], torch.tensor([0.0, 1.0]).expand(6, 2), atol=1e-5)
    radiation, co2, temperature, vapour = bank.disturbance[row].double()[:, None]
    seen = [radiation, temperature, model.relative_humidity(vapour, temperature), model.co2_ppm(co2, temperature)]
    assert torch.allclose(torch.cat(seen).float(), bank.signals[row], rtol=1e-5)
    with pytest.raises(BadInput, match=r"no season of 10 days starts between days 300 and 310 of the weather nether"):
        make_bank([year], step_s=900.0, season_steps=960, start_days=(300.0, 310.0))


def test_years_may_begin_in_the_old_year() -> None:
    values = np.tile([0.0, 5.0, 0.8, 420.0, 3.0], (24 * 20, 1))
    series = Series("east", np.datetime64("2000-12-31T23:00:00", "ms"), 3600.0, values)
    bank = make_bank([series], step_s=1800.0, season_steps=48, start_days=(1.0, 2.0))
    assert bank.day[bank.starts].tolist() == [1.0, 2.0]
