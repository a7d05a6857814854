"""Kernels in graphs of networks that run in 8 bits, stored as int8."""

from __future__ import annotations

import numpy as np


def store_int8(content: bytes) -> bytes:
    """The same ONNX graph, with int8 kernels in the place of fp32 ones that it would round each time.

    What it computes stays: a quarter of the size, and runtimes find the kernels as they want them.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(content)
    graph = model.graph
    values = {each.name: each for each in graph.initializer}
    values |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    kept, unused = [], set[str]()
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or not all(name in values for name in node.input):
            kept.append(node)
            continue
        kernel, step, zero = (numpy_helper.to_array(values[name]) for name in node.input)
        axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
        shape = [-1 if dimension == axis else 1 for dimension in range(kernel.ndim)] if step.ndim else []
        limits = np.iinfo(zero.dtype)
        codes = np.clip(np.rint(kernel / step.reshape(shape)) + zero.reshape(shape), limits.min, limits.max)
        graph.initializer.append(numpy_helper.from_array(codes.astype(zero.dtype), node.output[0]))
        unused.add(node.input[0])
    unused -= {name for node in kept for name in node.input}
    del graph.node[:]
    graph.node.extend(node for node in kept if node.output[0] not in unused)
    initializers = [each for each in graph.initializer if each.name not in unused]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    return bytes(model.SerializeToString())
