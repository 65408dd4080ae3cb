"""Checks of what robots and pictures need from the machine: radio, ports, OpenGL."""

import importlib.metadata
import importlib.util
import os
import socket
from collections.abc import Callable
from pathlib import Path

from robo_rl.doctor.check import Check, install_line, probe

_RADIO = ("1915", "7777")  # Bitcraze Crazyradio: USB vendor and product
_UDEV = (
    """echo 'SUBSYSTEM=="usb", ATTRS{idVendor}=="1915", ATTRS{idProduct}=="7777", MODE="0664", GROUP="plugdev"' """
    "| sudo tee /etc/udev/rules.d/99-crazyradio.rules && sudo udevadm control --reload-rules && sudo udevadm trigger"
)
_RENDER = (
    "import mujoco\nm = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=\".1\"/></worldbody></mujoco>')\n"
    "d = mujoco.MjData(m); mujoco.mj_forward(m, d); r = mujoco.Renderer(m, 16, 16); r.update_scene(d)\n"
    "print('draws' if r.render().any() else 'draws nothing but black')"
)
_APT = {"egl": "apt-get install -y libegl1 libgl1-mesa-dri libglx-mesa0", "osmesa": "apt-get install -y libosmesa6"}


def radio() -> Check:
    """cflib and the Crazyradio, for real Crazyflies; the emulated one needs neither."""
    if importlib.util.find_spec("cflib") is None:
        return Check(
            "Crazyflie radio",
            False,
            "cflib is not installed (emulated drones do not need it)",
            install_line("crazyflie"),
        )
    version = importlib.metadata.version("cflib")
    devices = _radios()
    barred = [d for d in devices if not os.access(d, os.W_OK)]
    if barred:
        return Check("Crazyflie radio", False, f"cflib {version}; no right to use {barred[0]}", _UDEV)
    return Check(
        "Crazyflie radio",
        True,
        f"cflib {version}; {f'{len(devices)} Crazyradio' if devices else 'no Crazyradio plugged in'}",
    )


def opengl(backend: str) -> Check:
    """Whether MuJoCo draws off screen with a backend; tried in its own process, which a bad driver may kill."""
    if importlib.util.find_spec("mujoco") is None:
        return Check(f"OpenGL {backend}", False, "not tried: no mujoco", install_line("train"))
    ok, said = probe(_RENDER, {"MUJOCO_GL": backend})
    ok = ok and said == "draws"
    return Check(f"OpenGL {backend}", ok, said, "" if ok else _APT[backend])


def robot_ports() -> Check:
    """Whether the default addresses of the emulated robots are free."""
    from urllib.parse import urlsplit

    from hardware.spec import load_spec, robot_names

    taken = []
    for name in robot_names():
        url = urlsplit(load_spec(name).address)
        kind = socket.SOCK_DGRAM if url.scheme == "udp" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as s:
            try:
                s.bind((url.hostname or "127.0.0.1", url.port or 0))
            except OSError as e:
                taken.append(f"{load_spec(name).address} ({e.strerror})")
    if taken:
        mend = "stop the program that serves it, or give another one: robo-rl emulate ROBOT --port PORT"
        return Check("robot ports", False, ", ".join(taken), mend)
    return Check("robot ports", True, ", ".join(load_spec(n).address for n in robot_names()) + " free")


def checks() -> list[Callable[[], Check]]:
    """All checks of this file, in the order in which they are shown."""
    return [radio, robot_ports, *(lambda b=b: opengl(b) for b in _APT)]


def _radios() -> list[Path]:
    """Device files of the Crazyradios that are plugged in."""
    found = []
    for device in Path("/sys/bus/usb/devices").glob("*/idVendor"):
        folder = device.parent
        if (device.read_text().strip(), (folder / "idProduct").read_text().strip()) == _RADIO:
            bus, number = (int((folder / n).read_text()) for n in ("busnum", "devnum"))
            found.append(Path(f"/dev/bus/usb/{bus:03d}/{number:03d}"))
    return found
