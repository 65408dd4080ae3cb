"""A policy file as C99: `policy.h`, `policy.c` and `policy_check.c`, which replays the policy's own probes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from controllers.artifact import PolicyArtifact
from hardware.errors import BadInput
from robo_rl.export_c.operators import statements
from robo_rl.export_c.parts import INFINITY, literal, only_used, template
from robo_rl.export_c.simplify import roots, simplified
from robo_rl.export_c.static_graph import Node, StaticGraph, static_graph

PART = 8
"""Operators per function of the generated code."""
FILES = ("policy.h", "policy.c", "policy_check.c")


@dataclass(frozen=True)
class Footprint:
    """What the generated code needs."""

    parameters: int
    """Floating-point constants."""
    buffer_bytes: int
    """Static working memory; there is no heap and no recursion."""


def write_c(artifact: PolicyArtifact, folder: Path) -> Footprint:
    """Writes the three files aside and renames them; raises BadInput for a graph that has no C form."""
    graph = simplified(static_graph(onnx.load_from_string(artifact.path.read_bytes())))
    places, size = _places(graph)
    footprint = Footprint(sum(int(v.size) for v in graph.constants.values() if v.dtype == np.float32), 4 * size)
    texts = (_header(artifact, graph, footprint), _source(artifact, graph, places, size), _check(artifact, graph))
    write_files(folder, dict(zip(FILES, texts, strict=True)))
    return footprint


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes texts (name -> content), each aside first and then renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        aside = folder / f".{name}.tmp"
        aside.write_text(text)
        aside.replace(folder / name)


def _places(graph: StaticGraph) -> tuple[dict[str, int], int]:
    """Offset of every intermediate tensor in one buffer, first fit over lifetimes; and the buffer's length."""
    root = roots(graph)
    last = {root.get(name, name): i for i, node in enumerate(graph.nodes) for name in node.inputs}
    places: dict[str, int] = {}
    alive: list[tuple[int, int, str]] = []
    size = 0
    for i, node in enumerate(graph.nodes):
        for name in node.outputs:
            if not name or name == graph.output or name in root:
                continue
            length, offset = int(np.prod(graph.shapes[name], dtype=int)), 0
            for begin, end, _ in sorted(alive):
                if offset + length <= begin:
                    break
                offset = max(offset, end)
            alive.append((offset, offset + length, name))
            places[name], size = offset, max(size, offset + length)
        alive = [a for a in alive if last.get(a[2], -1) > i]
    return places, size


def _header(artifact: PolicyArtifact, graph: StaticGraph, footprint: Footprint) -> str:
    card = artifact.card
    sizes = "\n".join(f"#define POLICY_{_macro(n)}_SIZE {size}" for n, size in graph.inputs.items())
    fields = "\n".join(
        f"   {f.name}: {f.source}, {f.size} x {f.history}{f', frame {f.frame}' if f.frame else ''}, "
        f"scale {f.scale:g}, offset {f.offset:g}, clip {f.clip:g}"
        for f in card.observation
    )
    commands = "\n".join(f"   {f.name}: {f.unit}" for f in card.action)
    return f"""/* Policy for {card.robot}, mode {card.mode}, at {card.rate_hz:g} Hz.
   Scene {card.scene}, seed {card.seed}, commit {card.commit}. Made by robo-rl export --c; do not edit.
   Robot contract (SHA-256): {card.robot_digest}

   Observation, each field's newest value first:
{fields}
   Command, in this order:
{commands}

   No heap, no library, no recursion; {footprint.parameters} constants, {footprint.buffer_bytes} bytes of buffer.
   Compile without -ffast-math and with -ffp-contract=off: then every IEEE 754 machine gives the same bits. */
#ifndef ROBO_RL_POLICY_H
#define ROBO_RL_POLICY_H

{sizes}
#define POLICY_COMMAND_SIZE {len(card.action)}

/* One decision: observation as above -> command in SI units, within the mode's limits. Not reentrant. */
void policy_run({_parameters(graph)}, float command[POLICY_COMMAND_SIZE]);

#endif
"""


def _source(artifact: PolicyArtifact, graph: StaticGraph, places: dict[str, int], size: int) -> str:
    numbers = {name: f"c{i}" for i, name in enumerate(graph.constants)}
    root = roots(graph)

    def at(name: str) -> str:
        name = root.get(name, name)
        if name in numbers:
            return numbers[name]
        if name in graph.inputs:
            return _c_name(name)
        return "command" if name == graph.output else f"(buffer + {places[name]})"

    nodes = [node for node in graph.nodes if node.outputs[0] not in root]
    blocks = [statements(node, graph, at) for node in nodes]
    used = " ".join(line for block in blocks for line in block)
    constants = [
        _array(numbers[name], value)
        for name, value in graph.constants.items()
        if re.search(rf"\b{numbers[name]}\b", used)
    ]
    parts, calls = _parts(graph, nodes, blocks)
    limits = artifact.interface.mode.limits.position
    clamps = "\n".join(
        f"  command[{i}] = command[{i}] < {literal(low)} ? {literal(low)} : "
        f"(command[{i}] > {literal(high)} ? {literal(high)} : command[{i}]);"
        for i, (low, high) in enumerate(limits)
    )
    math = only_used(template("math.c.in"), used)
    return f"""/* Generated by robo-rl export --c; do not edit. See policy.h. */
#include "policy.h"

#include <stdint.h>

#ifdef __FAST_MATH__
#error "policy.c needs IEEE arithmetic: compile it without -ffast-math"
#endif
#define {INFINITY} (1.0f / 0.0f)
#ifdef __GNUC__
#define POLICY_APART __attribute__((noinline))
#else
#define POLICY_APART
#endif

{math}
{chr(10).join(constants)}

{f"static float buffer[{size}];" if size else ""}

{parts}
void policy_run({_parameters(graph)}, float command[POLICY_COMMAND_SIZE]) {{
{calls}
  /* The mode's own limits. */
{clamps}
}}
"""


def _parts(graph: StaticGraph, nodes: Sequence[Node], blocks: Sequence[Sequence[str]]) -> tuple[str, str]:
    """The operators' statements as functions of a few operators each, and the calls of these functions.

    As one function they would keep so many addresses at hand that the stack grew with the network.
    """
    names = [*(_c_name(n) for n in graph.inputs), "command"]
    functions, calls = [], []
    for k, begin in enumerate(range(0, len(blocks), PART)):
        some = zip(nodes[begin : begin + PART], blocks[begin : begin + PART], strict=True)
        body = "\n".join(
            "\n".join([f"  {{ /* {node.op} */", *(f"    {line}" for line in block), "  }"]) for node, block in some
        )
        used = [n for n in names if re.search(rf"\b{n}\b", body)]
        given = ", ".join(f"{'' if n == 'command' else 'const '}float *{n}" for n in used) or "void"
        functions.append(f"POLICY_APART static void part_{k}({given}) {{\n{body}\n}}\n")
        calls.append(f"  part_{k}({', '.join(used)});")
    return "\n".join(functions), "\n".join(calls)


def _check(artifact: PolicyArtifact, graph: StaticGraph) -> str:
    probes = artifact.probes
    rows = len(next(iter(probes.observation.values())))
    arrays = [_array(f"probe_{_c_name(n)}", probes.observation[n], static=True) for n in graph.inputs]
    arguments = ", ".join(f"probe_{_c_name(n)} + r * {size}" for n, size in graph.inputs.items())
    tolerance = [literal(1e-6 * max(1.0, abs(f.scale))) for f in artifact.card.action]
    return f"""/* Replays the policy file's own probes; prints the commands' bits and returns how many probes differ. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "policy.h"

{chr(10).join(arrays)}
{_array("expected", probes.command, static=True)}
#ifdef POLICY_TICKS
uint32_t POLICY_TICKS(void);
#endif
static const float tolerance[POLICY_COMMAND_SIZE] = {{{", ".join(tolerance)}}};

int main(void) {{
  int wrong = 0;
  for (int r = 0; r < {rows}; r++) {{
    float command[POLICY_COMMAND_SIZE];
    int bad = 0;
    policy_run({arguments}, command);
    for (int i = 0; i < POLICY_COMMAND_SIZE; i++) {{
      float d = command[i] - expected[r * POLICY_COMMAND_SIZE + i];
      uint32_t bits;
      memcpy(&bits, &command[i], sizeof bits);
      printf("%08lx ", (unsigned long)bits);
      if (!((d < 0.0f ? -d : d) <= tolerance[i])) bad = 1;
    }}
    printf("\\n");
    wrong += bad;
  }}
  printf("%d of {rows} probes differ\\n", wrong);
#ifdef POLICY_TICKS
  uint32_t spent = 0, longest = 0;
  for (int r = 0; r < {rows}; r++) {{
    float command[POLICY_COMMAND_SIZE];
    uint32_t begin = POLICY_TICKS();
    policy_run({arguments}, command);
    uint32_t took = POLICY_TICKS() - begin;
    spent += took;
    longest = took > longest ? took : longest;
  }}
  printf("%lu ticks in {rows} decisions, at most %lu\\n", (unsigned long)spent, (unsigned long)longest);
#endif
  return wrong;
}}
"""


def _array(name: str, values: NDArray[np.generic], *, static: bool = True) -> str:
    flat = np.asarray(values, np.float32).ravel()
    if not np.isfinite(flat).all():
        raise BadInput(f"the policy holds {int((~np.isfinite(flat)).sum())} constants that are not finite")
    lines = [", ".join(literal(v) for v in flat[i : i + 6]) for i in range(0, len(flat), 6)]
    return f"{'static ' if static else ''}const float {name}[{len(flat)}] = {{\n  " + ",\n  ".join(lines) + "};"


def _parameters(graph: StaticGraph) -> str:
    return ", ".join(f"const float {_c_name(n)}[POLICY_{_macro(n)}_SIZE]" for n in graph.inputs)


def _c_name(group: str) -> str:
    return "obs_" + re.sub(r"\W", "_", group)


def _macro(group: str) -> str:
    return "OBS_" + re.sub(r"\W", "_", group).upper()
