"""ONNX operators as C statements, for static shapes; each writes its output tensor in row-major order."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hardware.errors import BadInput
from robo_rl.export_c.parts import literal
from robo_rl.export_c.simplify import ALIASES, LAYER
from robo_rl.export_c.static_graph import Node, StaticGraph

Name = Callable[[str], str]
"""Tensor -> C expression of its first element's address."""

UNARY = {
    "Abs": "{x} < 0.0f ? -{x} : {x}",
    "Exp": "policy_exp({x})",
    "Neg": "-{x}",
    "Reciprocal": "1.0f / {x}",
    "Relu": "{x} > 0.0f ? {x} : 0.0f",
    "Sigmoid": "policy_sigmoid({x})",
    "Sqrt": "policy_sqrt({x})",
    "Tanh": "policy_tanh({x})",
}
BINARY = {
    "Add": "{a} + {b}",
    "Sub": "{a} - {b}",
    "Mul": "{a} * {b}",
    "Div": "{a} / {b}",
    "Max": "{a} > {b} ? {a} : {b}",
    "Min": "{a} < {b} ? {a} : {b}",
    "Greater": "{a} > {b} ? 1.0f : 0.0f",
    "Less": "{a} < {b} ? 1.0f : 0.0f",
    "Where": "{c} != 0.0f ? {a} : {b}",
}
REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceSum")


def statements(node: Node, graph: StaticGraph, at: Name) -> list[str]:
    """C statements of one node; raises BadInput for an operator that has no C form."""
    if node.op in UNARY or node.op == "Elu":
        return _unary(node, graph, at)
    if node.op in BINARY:
        return _binary(node, graph, at)
    if node.op in REDUCTIONS:
        return _reduction(node, graph, at)
    if node.op in ALIASES:
        return [_copied(at(node.outputs[0]), at(node.inputs[0]), _count(graph, node.outputs[0]))]
    if node.op not in _OTHERS:
        known = sorted({*UNARY, *BINARY, *REDUCTIONS, *ALIASES, *_OTHERS, "Elu"} - {LAYER})
        raise BadInput(f"operator {node.op} of this policy has no C form; operators: {', '.join(known)}")
    return _OTHERS[node.op](node, graph, at)


def _unary(node: Node, graph: StaticGraph, at: Name) -> list[str]:
    form = UNARY.get(node.op)
    if form is None:
        form = f"{{x}} > 0.0f ? {{x}} : {literal(node.attributes.get('alpha', 1.0))} * (policy_exp({{x}}) - 1.0f)"
    x = f"{at(node.inputs[0])}[i]"
    return [
        f"for (int i = 0; i < {_count(graph, node.outputs[0])}; i++) {at(node.outputs[0])}[i] = {form.format(x=x)};"
    ]


def _binary(node: Node, graph: StaticGraph, at: Name) -> list[str]:
    names = node.inputs if node.op == "Where" else ("", *node.inputs)
    c, a, b = (_broadcast(n, node.outputs[0], graph, at) if n else "" for n in names)
    return _nest(
        graph.shapes[node.outputs[0]], f"{at(node.outputs[0])}[o++] = {BINARY[node.op].format(a=a, b=b, c=c)};"
    )


def _clip(node: Node, graph: StaticGraph, at: Name) -> list[str]:
    x = f"{at(node.inputs[0])}[i]"
    low, high = (literal(float(graph.constants[n])) if n else None for n in (_input(node, 1), _input(node, 2)))
    form = x
    if high is not None:
        form = f"{form} > {high} ? {high} : {form}"
    if low is not None:
        form = f"{x} < {low} ? {low} : ({form})"
    return [f"for (int i = 0; i < {_count(graph, node.outputs[0])}; i++) {at(node.outputs[0])}[i] = {form};"]


def _gemm(node: Node, graph: StaticGraph, at: Name) -> list[str]:
    raise BadInput("operator Gemm has a C form for constant weights only, without transA, alpha and beta")


def _matmul(node: Node, graph: StaticGraph, at: Name) -> list[str]:
    a, b = (graph.shapes[n] for n in node.inputs)
    if min(len(a), len(b)) < 2 or b[:-2] not in (a[:-2], ()):
        raise BadInput(f"operator MatMul of shapes {a} and {b} has no C form")
    batch = int(np.prod(b[:-2], dtype=int))
    rows, inner, out = _count(graph, node.inputs[0]) // (batch * a[-1]), a[-1], b[-1]
    y, x, w = at(node.outputs[0]), at(node.inputs[0]), at(node.inputs[1])
    steps = [f"{p} + n * {n}" for p, n in ((y, rows * out), (x, rows * inner), (w, inner * out))]
    return [f"for (int n = 0; n < {batch}; n++)", f"  policy_product({', '.join(steps)}, {rows}, {inner}, {out});"]


def _layer(node: Node, graph: StaticGraph, at: Name) -> list[str]:
    out, inner = graph.shapes[node.inputs[1]]
    rows = _count(graph, node.outputs[0]) // out
    y, x, w = at(node.outputs[0]), at(node.inputs[0]), at(node.inputs[1])
    bias = at(node.inputs[2]) if _input(node, 2) else "0"
    if rows == 1:
        return [f"policy_layer({y}, {x}, {w}, {bias}, {inner}, {out});"]
    return [
        f"for (int r = 0; r < {rows}; r++)",
        f"  policy_layer({y} + r * {out}, {x} + r * {inner}, {w}, {bias}, {inner}, {out});",
    ]


def _softmax(node: Node, graph: StaticGraph, at: Name) -> list[str]:
    shape = graph.shapes[node.inputs[0]]
    if node.attributes.get("axis", -1) not in (-1, len(shape) - 1):
        raise BadInput("operator Softmax along another axis than the last one has no C form")
    x, y, n = at(node.inputs[0]), at(node.outputs[0]), shape[-1]
    return [
        f"for (int r = 0; r < {_count(graph, node.outputs[0]) // n}; r++) {{",
        f"  const float *x = {x} + r * {n};",
        f"  float *y = {y} + r * {n};",
        "  float top = x[0], sum = 0.0f;",
        f"  for (int i = 1; i < {n}; i++) top = x[i] > top ? x[i] : top;",
        f"  for (int i = 0; i < {n}; i++) {{ y[i] = policy_exp(x[i] - top); sum += y[i]; }}",
        f"  for (int i = 0; i < {n}; i++) y[i] = y[i] / sum;",
        "}",
    ]


def _reduction(node: Node, graph: StaticGraph, at: Name) -> list[str]:
    shape = graph.shapes[node.inputs[0]]
    given = graph.constants[_input(node, 1)].tolist() if _input(node, 1) else None
    axes = sorted(int(a) % len(shape) for a in (given or node.attributes.get("axes") or range(len(shape))))
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise BadInput(f"operator {node.op} over axes {axes} has no C form")
    n, inner = int(np.prod(shape[axes[0] : axes[-1] + 1])), int(np.prod(shape[axes[-1] + 1 :], dtype=int))
    outer = int(np.prod(shape[: axes[0]], dtype=int))
    fold = "s = v > s ? v : s;" if node.op == "ReduceMax" else "s += v;"
    mean = f" / {literal(float(n))}" if node.op == "ReduceMean" else ""
    return [
        f"for (int r = 0; r < {outer}; r++)",
        f"  for (int j = 0; j < {inner}; j++) {{",
        f"    const float *x = {at(node.inputs[0])} + r * {n * inner} + j;",
        "    float s = x[0];",
        f"    for (int i = 1; i < {n}; i++) {{ float v = x[i * {inner}]; {fold} }}",
        f"    {at(node.outputs[0])}[r * {inner} + j] = s{mean};",
        "  }",
    ]


def _layer_norm(node: Node, graph: StaticGraph, at: Name) -> list[str]:
    shape = graph.shapes[node.inputs[0]]
    if node.attributes.get("axis", -1) not in (-1, len(shape) - 1):
        raise BadInput("operator LayerNormalization over several axes has no C form")
    n, epsilon = shape[-1], literal(node.attributes.get("epsilon", 1e-5))
    shift = f" + {at(_input(node, 2))}[i]" if _input(node, 2) else ""
    return [
        f"for (int r = 0; r < {_count(graph, node.outputs[0]) // n}; r++) {{",
        f"  const float *x = {at(node.inputs[0])} + r * {n};",
        f"  float *y = {at(node.outputs[0])} + r * {n};",
        "  float mean = 0.0f, spread = 0.0f;",
        f"  for (int i = 0; i < {n}; i++) mean += x[i];",
        f"  mean = mean / {literal(float(n))};",
        f"  for (int i = 0; i < {n}; i++) {{ float d = x[i] - mean; spread += d * d; }}",
        f"  spread = policy_sqrt(spread / {literal(float(n))} + {epsilon});",
        f"  for (int i = 0; i < {n}; i++) y[i] = (x[i] - mean) / spread * {at(node.inputs[1])}[i]{shift};",
        "}",
    ]


def _concat(node: Node, graph: StaticGraph, at: Name) -> list[str]:
    shape = graph.shapes[node.outputs[0]]
    axis = node.attributes["axis"] % len(shape)
    outer, row = int(np.prod(shape[:axis], dtype=int)), int(np.prod(shape[axis:], dtype=int))
    lines, begin = [], 0
    for name in node.inputs:
        part = int(np.prod(graph.shapes[name][axis:], dtype=int))
        lines.append(_copied(f"{at(node.outputs[0])} + {begin}", at(name), part, outer, row, part))
        begin += part
    return lines


def _gathered(pick: Callable[[Node, StaticGraph, Any], Any]) -> Callable[[Node, StaticGraph, Name], list[str]]:
    """An operator that only moves elements: where each one comes from is worked out now, on an array of indices."""

    def emit(node: Node, graph: StaticGraph, at: Name) -> list[str]:
        shape = graph.shapes[node.inputs[0]]
        index = np.asarray(pick(node, graph, np.arange(int(np.prod(shape, dtype=int))).reshape(shape))).ravel()
        x, y = at(node.inputs[0]), at(node.outputs[0])
        steps = set(np.diff(index).tolist())
        if steps in (set(), {1}):
            return [_copied(y, f"{x} + {index[0]}", len(index))]
        if len(steps) == 1:
            return [f"for (int i = 0; i < {len(index)}; i++) {y}[i] = {x}[{index[0]} + i * ({steps.pop()})];"]
        table = ", ".join(map(str, index))
        return [
            f"static const uint16_t from[{len(index)}] = {{{table}}};",
            f"for (int i = 0; i < {len(index)}; i++) {y}[i] = {x}[from[i]];",
        ]

    return emit


def _sliced(node: Node, graph: StaticGraph, index: Any) -> Any:
    given = (_input(node, i) for i in range(1, 5))
    starts, ends, axes, steps = (graph.constants[n].tolist() if n else None for n in given)
    cut = [slice(None)] * index.ndim
    for i, (start, end) in enumerate(zip(starts or (), ends or (), strict=True)):
        axis = axes[i] if axes else i
        cut[axis] = slice(start, None if end < -index.ndim - (1 << 30) else end, steps[i] if steps else 1)
    return index[tuple(cut)]


_OTHERS: dict[str, Callable[[Node, StaticGraph, Name], list[str]]] = {
    "Clip": _clip,
    "Concat": _concat,
    "Expand": _gathered(lambda n, g, i: np.broadcast_to(i, g.shapes[n.outputs[0]])),
    "Gather": _gathered(lambda n, g, i: np.take(i, g.constants[n.inputs[1]], axis=n.attributes.get("axis", 0))),
    "Gemm": _gemm,
    LAYER: _layer,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Slice": _gathered(_sliced),
    "Softmax": _softmax,
    "Transpose": _gathered(lambda n, g, i: np.transpose(i, n.attributes.get("perm"))),
}


def _copied(to: str, source: str, n: int, blocks: int = 1, to_step: int = 0, from_step: int = 0) -> str:
    return f"policy_copy({to}, {source}, {n}, {blocks}, {to_step}, {from_step});"


def _input(node: Node, i: int) -> str:
    """The node's input number i, or nothing where it is left out."""
    return node.inputs[i] if i < len(node.inputs) else ""


def _count(graph: StaticGraph, name: str) -> int:
    return int(np.prod(graph.shapes[name], dtype=int))


def _broadcast(name: str, output: str, graph: StaticGraph, at: Name) -> str:
    """The element of `name` that belongs to the output element at loop indices i0, i1, ..."""
    shape, wide = graph.shapes[name], graph.shapes[output]
    if name in graph.constants and _count(graph, name) == 1:
        return literal(float(graph.constants[name].reshape(())))
    padded = (1,) * (len(wide) - len(shape)) + tuple(shape)
    terms, stride = [], 1
    for axis in reversed(range(len(wide))):
        if padded[axis] > 1:
            terms.append(f"i{axis}" if stride == 1 else f"i{axis} * {stride}")
        stride *= padded[axis]
    return f"{at(name)}[{' + '.join(reversed(terms)) or '0'}]"


def _nest(shape: Sequence[int], body: str) -> list[str]:
    """Loops over all elements of a shape, with `o` counting them; dimensions of one have no loop."""
    loops = [f"for (int i{k} = 0; i{k} < {n}; i{k}++)" for k, n in enumerate(shape) if n > 1]
    return ["int o = 0;", *("  " * k + loop for k, loop in enumerate(loops)), "  " * len(loops) + body]
