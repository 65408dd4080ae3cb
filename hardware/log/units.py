"""Units of fields: of standard messages by REP-103, of others by the comments of their definitions."""

import re

_UNITS: dict[tuple[str, str], str] = {
    ("builtin_interfaces/msg/Time", "sec"): "s",
    ("builtin_interfaces/msg/Time", "nanosec"): "ns",
    ("builtin_interfaces/msg/Duration", "sec"): "s",
    ("builtin_interfaces/msg/Duration", "nanosec"): "ns",
    ("geometry_msgs/msg/Pose", "position"): "m",
    ("geometry_msgs/msg/Pose", "orientation"): "1",
    ("geometry_msgs/msg/Transform", "translation"): "m",
    ("geometry_msgs/msg/Transform", "rotation"): "1",
    ("geometry_msgs/msg/PointStamped", "point"): "m",
    ("geometry_msgs/msg/Twist", "linear"): "m/s",
    ("geometry_msgs/msg/Twist", "angular"): "rad/s",
    ("geometry_msgs/msg/Accel", "linear"): "m/s^2",
    ("geometry_msgs/msg/Accel", "angular"): "rad/s^2",
    ("geometry_msgs/msg/Wrench", "force"): "N",
    ("geometry_msgs/msg/Wrench", "torque"): "N m",
    ("sensor_msgs/msg/Imu", "orientation"): "1",
    ("sensor_msgs/msg/Imu", "angular_velocity"): "rad/s",
    ("sensor_msgs/msg/Imu", "linear_acceleration"): "m/s^2",
    ("sensor_msgs/msg/MagneticField", "magnetic_field"): "T",
    ("sensor_msgs/msg/BatteryState", "voltage"): "V",
    ("sensor_msgs/msg/BatteryState", "current"): "A",
    ("sensor_msgs/msg/BatteryState", "charge"): "Ah",
    ("sensor_msgs/msg/BatteryState", "capacity"): "Ah",
    ("sensor_msgs/msg/BatteryState", "design_capacity"): "Ah",
    ("sensor_msgs/msg/BatteryState", "percentage"): "1",
    ("sensor_msgs/msg/BatteryState", "temperature"): "degC",
    ("sensor_msgs/msg/BatteryState", "cell_voltage"): "V",
    ("sensor_msgs/msg/BatteryState", "cell_temperature"): "degC",
    ("sensor_msgs/msg/Temperature", "temperature"): "degC",
    ("sensor_msgs/msg/RelativeHumidity", "relative_humidity"): "1",
    ("sensor_msgs/msg/FluidPressure", "fluid_pressure"): "Pa",
    ("sensor_msgs/msg/Illuminance", "illuminance"): "lx",
    ("sensor_msgs/msg/Range", "range"): "m",
    ("sensor_msgs/msg/Range", "min_range"): "m",
    ("sensor_msgs/msg/Range", "max_range"): "m",
    ("sensor_msgs/msg/JointState", "effort"): "N m",
    ("sensor_msgs/msg/JointState", "position"): "rad",
    ("sensor_msgs/msg/JointState", "velocity"): "rad/s",
}
"""(type, field) -> unit, inherited by everything below that field."""


def unit_of(message_type: str, field: str, inherited: str) -> str:
    """The unit of a field of a message type; `inherited` from the field that holds the message, '' where unknown."""
    return _UNITS.get((message_type, field), inherited)


_COMMENTED = re.compile(r"^[ \t]*[\w/<=>\[\]]+[ \t]+([a-zA-Z]\w*)[ \t]*#[ \t]*\[([^\]\s][^\]\n]{0,30})\]", re.MULTILINE)


def units_in(definition: str) -> dict[str, str]:
    """Field -> unit, of a definition whose fields are commented `# [unit] …`, as PX4's and those of imported tables."""
    own = definition.split("\n" + "=" * 80, 1)[0]
    return {m[1]: m[2].strip() for m in _COMMENTED.finditer(own)}
