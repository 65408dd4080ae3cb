"""The ROS 2 node `policy_node` for launch files: policies as users name them, goals as `x,y,z`, any number as float.

    python -m robo_rl.deployment.policy_node zoo:quadrotor-hover --goal 0,0,1 --ros-args -r __ns:=/crazyflie

POLICY is a .onnx file, a run directory, or zoo:NAME. Everything behind --ros-args goes to the node as it is; see
controllers.nodes.policy_node for its parameters.
"""

import argparse
import sys
from collections.abc import Sequence

from hardware.errors import BadInput, RoboError
from robo_rl.zoo import resolve

_TAIL = "--ros-args"


def node_arguments(argv: Sequence[str]) -> list[str]:
    """The node's own arguments for a command line; raises BadInput or NotFoundError with one line."""
    at = argv.index(_TAIL) if _TAIL in argv else len(argv)
    parser = argparse.ArgumentParser(prog="policy_node", description=__doc__)
    parser.add_argument("policy", metavar="POLICY")
    parser.add_argument("--goal", action="append", default=[], help="where to go, as x,y,z in metres; repeatable")
    parser.add_argument("--duration", default="0", help="seconds for which the policy acts; 0: until it is stopped")
    known = parser.parse_args(argv[:at])
    parameters = {
        "policy": f'"{resolve(known.policy).resolve()}"',
        "duration_s": repr(_number("--duration", known.duration)),
        "exit_when_done": "true",
    }
    if known.goal:
        numbers = ", ".join(repr(_number("--goal", n)) for goal in known.goal for n in goal.split(","))
        parameters["goal"] = f"[{numbers}]"
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    return [_TAIL, *words, *argv[at + 1 :]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the node; see controllers.nodes.policy_node.main."""
    try:
        arguments = node_arguments(sys.argv[1:] if argv is None else argv)
    except RoboError as e:
        print(f"policy_node: {e}", file=sys.stderr)
        return 1
    from controllers.nodes import policy_node

    return policy_node.main(arguments)


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"{flag}: '{text}' is not a number") from None


if __name__ == "__main__":
    sys.exit(main())
