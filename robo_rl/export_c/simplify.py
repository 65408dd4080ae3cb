"""What a graph does, done with less: weights read in order, biases added at once, data left where it can stay."""

from collections import Counter

import numpy as np

from robo_rl.export_c.static_graph import Node, StaticGraph

LAYER = "Layer"
"""Rows times a constant matrix that is stored column by column (out, inner), plus a bias (out,) where there is one."""
ALIASES = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
"""They change the shape only: row-major data stays where it is."""


def simplified(graph: StaticGraph) -> StaticGraph:
    """The same numbers, bit for bit, with products by constant matrices as layers."""
    graph = _with_layers(graph)
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    layers: dict[str, int] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == LAYER and len(node.inputs) == 2 and uses[node.outputs[0]] == 1:
            layers[node.outputs[0]] = len(nodes)
        found = _bias_of(node, graph, layers)
        if found is None:
            nodes.append(node)
            continue
        at, bias = found
        nodes[at] = Node(LAYER, (*nodes[at].inputs, bias), node.outputs, {})
    return _pruned(graph, nodes)


def roots(graph: StaticGraph) -> dict[str, str]:
    """Tensor -> the earlier one whose numbers, in the same order, are its own; the graph's output has a place apart."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        source = node.inputs[0] if node.inputs else ""
        if node.outputs[0] != graph.output and source not in graph.constants and _stays(node, graph):
            found[node.outputs[0]] = found.get(source, source)
    return found


def _stays(node: Node, graph: StaticGraph) -> bool:
    if node.op in ALIASES:
        return True
    if node.op != "Transpose":
        return False
    shape = graph.shapes[node.inputs[0]]
    order = np.arange(np.prod(shape, dtype=int))
    return bool(np.array_equal(order.reshape(shape).transpose(node.attributes.get("perm")).ravel(), order))


def _with_layers(graph: StaticGraph) -> StaticGraph:
    constants = dict(graph.constants)
    nodes = []
    for node in graph.nodes:
        weight = constants.get(node.inputs[1]) if node.op in ("Gemm", "MatMul") else None
        if weight is None or weight.ndim != 2 or not _plain(node, graph):
            nodes.append(node)
            continue
        name = node.inputs[1]
        if not node.attributes.get("transB", 0):
            name += ".T"
            constants[name] = np.ascontiguousarray(weight.T)
        nodes.append(Node(LAYER, (node.inputs[0], name, *node.inputs[2:]), node.outputs, {}))
    shapes = graph.shapes | {name: value.shape for name, value in constants.items()}
    return _pruned(StaticGraph(graph.inputs, graph.output, graph.nodes, constants, shapes), nodes)


def _plain(node: Node, graph: StaticGraph) -> bool:
    """Whether a product has no other trait than a bias per column."""
    scaled = any(node.attributes.get(name, 1.0) != 1.0 for name in ("alpha", "beta"))
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    fits = not bias or _is_bias(bias, graph.shapes[node.outputs[0]][-1], graph)
    return fits and not (scaled or node.attributes.get("transA", 0))


def _is_bias(name: str, out: int, graph: StaticGraph) -> bool:
    shape = graph.shapes[name]
    return name in graph.constants and bool(shape) and shape[-1] == out == int(np.prod(shape))


def _bias_of(node: Node, graph: StaticGraph, layers: dict[str, int]) -> tuple[int, str] | None:
    """Where the layer is whose bias this node adds, and the bias."""
    if node.op != "Add":
        return None
    for product, bias in (node.inputs, node.inputs[::-1]):
        if product in layers and _is_bias(bias, graph.shapes[product][-1], graph):
            return layers[product], bias
    return None


def _pruned(graph: StaticGraph, nodes: list[Node]) -> StaticGraph:
    used = {name for n in nodes for name in n.inputs}
    constants = {name: value for name, value in graph.constants.items() if name in used}
    return StaticGraph(graph.inputs, graph.output, tuple(nodes), constants, graph.shapes)
