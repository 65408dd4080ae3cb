"""A policy's ONNX graph for one observation: every shape known, everything constant folded, nodes in order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.reference
import onnx.shape_inference
from numpy.typing import NDArray

from hardware.errors import BadInput


@dataclass(frozen=True)
class Node:
    """One operation that remains to be done at run time."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class StaticGraph:
    """What the generator works on."""

    inputs: dict[str, int]
    """Observation group -> length."""
    output: str
    nodes: tuple[Node, ...]
    constants: dict[str, NDArray[Any]]
    shapes: dict[str, tuple[int, ...]]


def static_graph(model: onnx.ModelProto) -> StaticGraph:
    """The graph for a batch of one; raises BadInput where a shape depends on the observation's values."""
    model = _with_batch_of_one(model)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    shapes = {v.name: _shape(v) for v in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes: list[Node] = []
    for proto in model.graph.node:
        if proto.op_type == "Shape" and proto.input[0] in shapes:
            constants[proto.output[0]] = np.array(shapes[proto.input[0]], np.int64)
            continue
        if all(name in constants or not name for name in proto.input):
            constants |= _folded(proto, constants, opset)
            continue
        unknown = [o for o in proto.output if o and (o not in shapes or any(d < 1 for d in shapes[o]))]
        if unknown:
            raise BadInput(f"operator {proto.op_type}: the shape of {unknown[0]} is not known before the policy runs")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        nodes.append(Node(proto.op_type, tuple(proto.input), tuple(proto.output), attributes))
    shapes |= {name: value.shape for name, value in constants.items()}
    inputs = {v.name: _shape(v)[1] for v in model.graph.input}
    used = {name for n in nodes for name in n.inputs}
    kept = {name: value for name, value in constants.items() if name in used}
    return StaticGraph(inputs, model.graph.output[0].name, tuple(nodes), kept, shapes)


def _with_batch_of_one(model: onnx.ModelProto) -> onnx.ModelProto:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(fixed, data_prop=True)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)


def _folded(proto: onnx.NodeProto, constants: dict[str, NDArray[Any]], opset: int) -> dict[str, NDArray[Any]]:
    """The outputs of a node whose inputs are all known, by the ONNX reference implementation."""
    names = [n for n in proto.input if n]
    graph = onnx.helper.make_graph(
        [proto],
        "constant",
        [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(constants[n].dtype), None)
            for n in names
        ],
        [onnx.helper.make_tensor_value_info(o, onnx.TensorProto.UNDEFINED, None) for o in proto.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    values = onnx.reference.ReferenceEvaluator(model).run(None, {n: constants[n] for n in names})
    return dict(zip(proto.output, map(np.asarray, values), strict=True))
