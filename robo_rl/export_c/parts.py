"""Pieces of C: literals that keep every bit, and templates of which only the functions in use are copied."""

import re
from importlib import resources

import numpy as np

from hardware.errors import BadInput

INFINITY = "POLICY_INFINITY"
_FUNCTION = re.compile(r"^(?:POLICY_APART )?static (?:float|int|void) (\w+)\(", re.MULTILINE)

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def literal(value: float) -> str:
    """A float as C's hexadecimal literal: exactly these bits."""
    value = float(np.float32(value))
    if np.isnan(value):
        raise BadInput("the policy holds a constant that is not a number")
    if np.isinf(value):
        return INFINITY if value > 0 else f"-{INFINITY}"
    mantissa, exponent = value.hex().split("p")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}p{exponent}f"


def template(name: str, **values: object) -> str:
    """A text beside this file with its {{NAMES}} replaced; raises BadInput where one is left over."""
    text = resources.files("robo_rl.export_c").joinpath(name).read_text()
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", str(value))
    if left := re.search(r"\{\{(\w+)\}\}", text):
        raise BadInput(f"template {name}: nothing given for {left[1]}")
    return text


def only_used(text: str, used: str) -> str:
    """The functions of `text` that `used` calls, and those that these call; unused ones would be warned about."""
    pieces = re.split(r"\n(?=/\*|static |POLICY_APART )", text)
    head, functions, comment = [], {}, ""
    for piece in pieces:
        if found := _FUNCTION.search(piece):
            functions[found[1]] = comment + piece.rstrip() + "\n"
            comment = ""
        elif functions or head:
            comment = piece.rstrip() + "\n"
        else:
            head.append(piece.rstrip() + "\n")
    wanted: set[str] = set()
    todo = re.findall(r"\w+", used)
    while todo:
        name = todo.pop()
        if name in functions and name not in wanted:
            wanted.add(name)
            todo += re.findall(r"\w+", _COMMENT.sub("", functions[name]))
    return "\n".join([*head, *(functions[name] for name in functions if name in wanted)])
