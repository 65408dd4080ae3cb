"""Foreign files that are broken or malicious: refused in one line, nothing executed, nothing left behind."""

import io
import os
import pickle
import random
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from support.foreign import (
    Call,
    Global,
    Storage,
    crazyflie_log,
    plus_sequence,
    small_archive,
    sqlite_bag,
    tensor,
    torch_archive,
    ulog,
)

from hardware.errors import BadInput
from hardware.log.imports import Options, import_log, known_importers
from hardware.log.qos import Qos
from hardware.log.reader import Log, LogWarning
from hardware.log.types import MessageType
from hardware.log.writer import LogWriter

FORMATS = ("crazyflie", "csv", "hdf5", "npz", "openigtlink", "plus", "rosbag2", "torch", "ulog")
CHECKED_TO_THE_END = ("crazyflie", "npz", "openigtlink", "plus", "rosbag2", "torch")
"""Formats that say how long they are: cutting off even one byte is noticed."""


def _igtl() -> bytes:
    from pyigtl.messages import ImageMessage, StringMessage, TransformMessage

    picture = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    return b"".join(
        [
            TransformMessage(np.eye(4), timestamp=100.25, device_name="ProbeToTracker").pack(),
            ImageMessage(picture, timestamp=100.5, device_name="US").pack(),
            StringMessage("begin", timestamp=101.0, device_name="Note").pack(),
        ]
    )


def _npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _hdf5(folder: Path) -> bytes:
    import h5py

    with h5py.File(folder / "x.h5", "w") as file:
        file["t"] = np.arange(50.0)
        file.create_dataset("x", data=np.arange(100.0).reshape(50, 2), compression="gzip")
    return (folder / "x.h5").read_bytes()


def _mcap(folder: Path) -> bytes:
    with LogWriter(folder / "log") as writer:
        writer.add_topic("/chatter", "std_msgs/msg/String", (Qos(),))
        for i in range(50):
            writer.write("/chatter", b"\0\1\0\0\2\0\0\0a\0", i)
    return (folder / "log" / "log_0.mcap").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A good file of every format."""
    folder = tmp_path_factory.mktemp("whole")
    return {
        "crazyflie": crazyflie_log([(1000 * i, 1.0, i) for i in range(20)]),
        "csv": b"time,x,y\n" + b"".join(b"%d,%d,hello\n" % (i, i) for i in range(50)),
        "hdf5": _hdf5(folder),
        "npz": _npz(t=np.arange(20.0), x=np.arange(40.0).reshape(20, 2)),
        "openigtlink": _igtl(),
        "plus": plus_sequence(),
        "rosbag2": _mcap(folder),
        "torch": small_archive(),
        "ulog": ulog([(1000 * (i + 1), 11.0, True) for i in range(20)]),
    }


def _import(folder: Path, raw: bytes, format: str) -> str:
    """Imports bytes; returns the one line of a refusal, or '' where a log that reads back came out."""
    file = folder / "file"
    file.write_bytes(raw)
    try:
        done = import_log(file, folder / "log", format, Options(rate_hz=10.0))
    except BadInput as e:
        said = str(e)
    else:
        assert sum(1 for _ in Log(done.output).messages(raw=True)) == done.messages
        return ""
    assert "\n" not in said
    assert len(said) < 1000
    assert sorted(p.name for p in folder.iterdir()) == ["file"], "a refused file leaves nothing"
    return said


@pytest.mark.parametrize("format", FORMATS)
def test_good_files_are_good(whole: dict[str, bytes], tmp_path: Path, format: str) -> None:
    """What the others are made from by damage; the list holds every format there is."""
    assert set(FORMATS) == set(known_importers())
    assert _import(tmp_path, whole[format], format) == ""
    assert Log(tmp_path / "log").count >= 3


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=25)
@given(cut=st.floats(0.0, 0.999))
def test_truncated_anywhere(
    whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, format: str, cut: float
) -> None:
    """Refused; only a table, and a log that may end anywhere, may be shorter than it was."""
    raw = whole[format]
    said = _import(tmp_path_factory.mktemp("cut"), raw[: int(len(raw) * cut)], format)
    assert said or format not in CHECKED_TO_THE_END


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=40)
@given(data=st.data())
def test_damaged_anywhere(
    whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, format: str, data: st.DataObject
) -> None:
    """Bytes replaced, inserted or removed: a refusal in one line or a log that reads back, never anything else."""
    raw = bytearray(whole[format])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    _import(tmp_path_factory.mktemp("damaged"), bytes(raw), format)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=15)
@given(raw=st.binary(max_size=400))
def test_garbage(tmp_path_factory: pytest.TempPathFactory, format: str, raw: bytes) -> None:
    """Any bytes, taken for the format."""
    magic = {"crazyflie": b"\xbc\2\0", "hdf5": b"\x89HDF\r\n\x1a\n", "ulog": b"ULog\x01\x12\x35\x01", "npz": b"PK\3\4"}
    _import(tmp_path_factory.mktemp("garbage"), magic.get(format, b"") + raw, format)


class Planted:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.target),)


def test_code_in_pickles_is_never_run(tmp_path: Path) -> None:
    """Planted by __reduce__, by instruction and inside an object array; that they work is shown first."""
    target = tmp_path / "planted"
    pickle.loads(pickle.dumps(Planted(target)))
    assert target.exists(), "the trap itself works"
    target.rmdir()

    planted = pickle.dumps({"x": Planted(target)})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", planted)
    (tmp_path / "a").mkdir()
    assert "names posix.mkdir, which is not part of a tensor" in _import(tmp_path / "a", out.getvalue(), "torch")

    call = Call(Global("posix", "mkdir"), (str(target),))
    (tmp_path / "b").mkdir()
    assert "names posix.mkdir" in _import(tmp_path / "b", torch_archive({"x": call}, {}), "torch")

    objects = io.BytesIO()
    np.savez(objects, t=np.arange(1.0), x=np.array([Planted(target)], dtype=object))
    (tmp_path / "c").mkdir()
    assert "pickled Python objects, which are never loaded" in _import(tmp_path / "c", objects.getvalue(), "npz")
    assert not target.exists()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"x": Call(Global("builtins", "eval"), ("1+1",))}, "names builtins.eval"),
        ({"x": Call(Global("torch._utils", "_rebuild_tensor"), ())}, "names torch._utils._rebuild_tensor,"),
        (
            {"x": Call(Global("collections", "OrderedDict"), ((("a", 1),),))},
            "calls something that does not make a tensor",
        ),
        ({"x": Call(Global("torch", "FloatStorage"), ())}, "calls something that does not make a tensor"),
        ({("k",): 1}, "something else than a dictionary with names"),
        (tensor("FloatStorage", "0", 2, (2,), (1,)), "holds a tensor, expected a dictionary"),
        ({"x": 1}, "holds no tensor"),
        ({"x": tensor("FloatStorage", "0", 2, (3,), (1,))}, "reaches beyond its 2 numbers"),
        ({"x": tensor("FloatStorage", "0", 2, (2,), (7,))}, "reaches beyond its 2 numbers"),
        ({"x": tensor("FloatStorage", "0", 2, (1,), (1,), offset=2)}, "reaches beyond its 2 numbers"),
        ({"x": tensor("FloatStorage", "0", 2, (10**12,), (0,))}, "reaches beyond its 2 numbers"),
        ({"x": tensor("FloatStorage", "0", 2, (2,), (-1,), offset=1)}, "do not go together"),
        ({"x": tensor("FloatStorage", "0", 9, (2,), (1,))}, "8 bytes for 9 numbers"),
        ({"x": tensor("FloatStorage", "7", 2, (2,), (1,))}, "its numbers are missing"),
        ({"x": tensor("ComplexStorage", "0", 2, (2,), (1,))}, "names torch.ComplexStorage"),
        ({"x": Storage("FloatStorage", "0", -1)}, "something that is no storage"),
    ],
)
def test_tensors_that_are_none(tmp_path: Path, value: object, says: str) -> None:
    """Foreign names, foreign calls, shapes that reach beyond the data."""
    said = _import(tmp_path, torch_archive(value, {"0": bytes(8)}), "torch")
    assert says in said


@pytest.mark.parametrize("instruction", [b"b", b"o", b"\x81", b"\x92", b"(i__main__\nX\n", b"\x82\1", b"P1\n", b"0"])
def test_instructions_that_build_objects_are_unknown(tmp_path: Path, instruction: bytes) -> None:
    """BUILD, OBJ, NEWOBJ, NEWOBJ_EX, INST, EXT1, PERSID, POP."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}}}" + instruction + b".")
    assert "contains the instruction" in _import(tmp_path, out.getvalue(), "torch")


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    """A gigabyte of zeros in a few kB or MB: refused by the numbers in its headers, before anything is unpacked."""
    h5py = pytest.importorskip("h5py")
    for name in ("zip", "torch", "h5", "empty", "plus"):
        (tmp_path / name).mkdir()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 27,)})
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block, crc = bytes(1 << 20), zlib.crc32(header.getvalue())
    packed = [packer.compress(header.getvalue())]
    for _ in range(1 << 10):
        packed.append(packer.compress(block))
        crc = zlib.crc32(block, crc)
    body = b"".join([*packed, packer.flush()])
    size = len(header.getvalue()) + (1 << 30)
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 0, crc, len(body), size, 5, 0) + b"x.npy"
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, crc, len(body), size, 5, 0, 0, 0, 0, 0, 0
    ) + b"x.npy"  # fmt: skip
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local) + len(body), 0)
    assert "is not unpacked" in _import(tmp_path / "zip", local + body + central + end, "npz")

    zeros = torch_archive(
        {"x": tensor("FloatStorage", "0", 250_000, (250_000,), (1,))}, {"0": bytes(10**6)}, compress=True
    )
    assert "members are compressed, which torch never does" in _import(tmp_path / "torch", zeros, "torch")

    with h5py.File(tmp_path / "x.h5", "w") as file:
        x = file.create_dataset("x", shape=(1 << 27,), dtype="f8", chunks=(1 << 20,), compression="gzip")
        x[: 1 << 20] = 1.0
    assert "claims 1073741824 bytes out of" in _import(tmp_path / "h5", (tmp_path / "x.h5").read_bytes(), "hdf5")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.create_dataset("x", shape=(1 << 50,), dtype="f8", chunks=(1 << 20,))
    assert "claims 9007199254740992 bytes out of 0" in _import(
        tmp_path / "empty", (tmp_path / "y.h5").read_bytes(), "hdf5"
    )

    scan = plus_sequence(packed=True).replace(b"DimSize = 4 3 2", b"DimSize = 60000 60000 2")
    assert "claims 7200000000 bytes of pixels" in _import(tmp_path / "plus", scan, "plus")


def test_a_chunk_that_claims_too_much_is_not_unpacked(whole: dict[str, bytes], tmp_path: Path) -> None:
    """The size in the header of an MCAP chunk, set to 2 GiB."""
    raw = bytearray(whole["rosbag2"])
    with io.BytesIO(raw) as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    at = summary.chunk_indexes[0].chunk_start_offset + 9 + 16  # opcode and length, two instants
    raw[at : at + 8] = struct.pack("<Q", 1 << 31)
    assert "cannot be read (ValueError)" in _import(tmp_path, bytes(raw), "rosbag2")


def test_files_do_not_reach_other_files(tmp_path: Path) -> None:
    """HDF5 with external storage, bags and scans that name files elsewhere."""
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret.bin").write_bytes(np.arange(4.0).tobytes())
    with h5py.File(tmp_path / "x.h5", "w") as file:
        external = [(str(tmp_path / "secret.bin"), 0, 32)]
        file.create_dataset("x", shape=(4,), dtype="f8", external=external)
    (tmp_path / "h5").mkdir()
    assert "lies in another file, which is not opened" in _import(
        tmp_path / "h5", (tmp_path / "x.h5").read_bytes(), "hdf5"
    )
    (tmp_path / "plus").mkdir()
    scan = plus_sequence().replace(b"ElementDataFile = LOCAL", b"ElementDataFile = ../secret.bin")
    assert "only LOCAL ones are read" in _import(tmp_path / "plus", scan, "plus")
    for place in (b"", b"XElementDataFile = LOCAL"):  # no such key, or one that only ends like it
        (tmp_path / f"plus{len(place)}").mkdir()
        scan = plus_sequence().replace(b"ElementDataFile = LOCAL", place)
        expected = "its pixels lie in ''" if place else "its header does not end"
        assert expected in _import(tmp_path / f"plus{len(place)}", scan, "plus")
    bag = tmp_path / "bag"
    bag.mkdir()
    sqlite_bag(tmp_path / "elsewhere.db3", ["secret"])
    (bag / "metadata.yaml").write_text(
        "rosbag2_bagfile_information:\n  storage_identifier: sqlite3\n  relative_file_paths: [../elsewhere.db3]\n"
    )
    with pytest.raises(BadInput, match=r"names elsewhere\.db3, which is not there"):
        import_log(bag, tmp_path / "out")


def test_databases_run_nothing(tmp_path: Path) -> None:
    """A table that is a query without end, and bytes that are no database."""
    path = tmp_path / "endless.db3"
    sqlite_bag(path, ["x"])
    database = sqlite3.connect(path)
    database.executescript(
        "ALTER TABLE messages RENAME TO m; CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL"
        " SELECT i + 1 FROM n) SELECT i AS id, 1 AS topic_id, i AS timestamp, x'00' AS data FROM n;"
    )
    database.close()
    with pytest.raises(BadInput, match="'messages' is no plain table"):
        import_log(path, tmp_path / "out")
    for value in ("'text'", "NULL", "-5"):
        sqlite_bag(tmp_path / "bad.db3", ["x"])
        database = sqlite3.connect(tmp_path / "bad.db3")
        database.execute(
            f"UPDATE messages SET {'timestamp' if value == '-5' else 'data'} = {value}"
            if value != "NULL"
            else "UPDATE messages SET topic_id = 99"
        )
        database.commit()
        database.close()
        with pytest.raises(BadInput, match=r"a message is damaged|do not fit a recording"):
            import_log(tmp_path / "bad.db3", tmp_path / "out")
        (tmp_path / "bad.db3").unlink()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("format", "raw", "says"),
    [
        ("crazyflie", struct.pack("<BHH", 0xBC, 2, 0xFFFF) + bytes(100), "header ends early or is damaged"),
        ("crazyflie", crazyflie_log([(1, 1.0, 1)])[:-4] + bytes(4), "its CRC is wrong"),
        ("crazyflie", crazyflie_log([(2**63, 1.0, 1)]), "beyond the year 2262"),
        ("openigtlink", struct.pack(">H12s20sIIQQ", 1, b"IMAGE", b"x", 0, 0, 2**63, 0), f"{2**63} bytes claimed"),
        ("plus", plus_sequence().replace(b"_Timestamp = 101.5", b"_Timestamp = x"), "Timestamp is not"),
        ("plus", plus_sequence().replace(b"_Timestamp = 101.5", b"_Timestamp = 3e9"), "row 1 at 30000000000"),
        ("plus", plus_sequence().replace(b"Seq_Frame0001", b"Seq_Frame0009"), "frames are missing between 0 and 9"),
        ("plus", plus_sequence().replace(b" 10 1 0 0 0 0 0 1", b" nan 1 0 0 0 0 0 1"), "is not 16 finite numbers"),
        ("plus", plus_sequence()[:-1], "23 bytes of pixels, DimSize says 24"),
        ("npz", _npz(x=np.zeros(3))[:50], "not a whole NumPy archive"),
        ("csv", b"a\0b", "it holds zero bytes"),
        ("csv", b"\n\n", "it is empty"),
        ("ulog", b"PK\3\4", "not a PX4 flight log"),
    ],
)  # fmt: skip
def test_lengths_and_numbers_that_lie(tmp_path: Path, format: str, raw: bytes, says: str) -> None:
    """Each check has its own line."""
    assert says in _import(tmp_path, raw, format)


def test_an_array_longer_than_its_file(tmp_path: Path) -> None:
    """The shape in the header is compared with the bytes that are there before memory is taken."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(64))
    assert "claims shape (1000000000000000,), more than its" in _import(tmp_path, out.getvalue(), "npz")


def test_column_names_are_no_code(tmp_path: Path) -> None:
    """Names become plain fields, whatever they are: Python generates code from definitions."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    names = ["class", "__init__", "x\ty", "a b", "9", "A", "a", "import os", "é", "#", "=====", "[m]", "x # [m]"]
    names += ["".join(chr(rng.randrange(32, 0x300)) for _ in range(8)) for _ in range(40)]
    names = [n for n in dict.fromkeys(names) if n not in ("npz",) and "/" not in n and "\\" not in n]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ["t", *names]:
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, np.arange(3.0))
    assert _import(tmp_path, out.getvalue(), "npz") == ""
    log = Log(tmp_path / "log")
    [topic] = log.topics
    assert len(log.series(topic)) == len(names)


@pytest.mark.parametrize(
    ("name", "definition", "says"),
    [
        ("acme/msg/Foo", "acme/Foo x\n", r"cannot be parsed \(RecursionError\)"),
        ("acme/msg/Foo", "acme/Foo[] x\nfloat64 y\n", r"cannot be parsed \(RecursionError\)"),
        ("a/msg/B", "float64[99999999999] x\n", "field x is an array of 99999999999; at most 16777216"),
        ("a/msg/B\nfloat64 x", "float64 x\n", r"'a/msg/B\\nfloat64 x' is no name of a message type"),
        ("x'); import os #/msg/Y", "float64 x\n", "is no name of a message type"),
        ("a/msg/B", "float64 x\nfloat64 x\n", "cannot be parsed"),
    ],
)
def test_types_that_are_none_are_skipped(tmp_path: Path, name: str, definition: str, says: str) -> None:
    """Code is generated from a log's definitions, so they must be plain; the other topics are read."""
    with LogWriter(tmp_path / "log") as writer:
        writer.add_topic("/bad", MessageType(name, definition))
        writer.write("/bad", b"\0\1\0\0" + bytes(8), 1)
        writer.add_topic("/good", "std_msgs/msg/Bool")
        writer.write("/good", b"\0\1\0\0\1", 2)
    with pytest.warns(LogWarning, match=says) as caught:
        log = Log(tmp_path / "log")
    assert all("\n" not in str(w.message) for w in caught)
    assert log.channels["/good.data"].values.tolist() == [True]
    with pytest.raises(BadInput, match=says):
        log.series("/bad")
