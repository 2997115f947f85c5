"""The mesh generator G and the lifter L from their weights to ONNX, as this package ships them.

    python -m pchmr_export.open_networks WEIGHTS -o export/pchmr_export/data

WEIGHTS is what `pchmr_training.open_default.train` wrote: a safetensors file a network and
`examples.npz`. Each graph takes keypoints (batch, 25, 3) with a free batch and names them in its
metadata; `<name>.parity.npz` holds the examples and PyTorch's own outputs for them.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

OPSET = 18
LARGE = 1024  # elements; smaller constants stay float32


def export_network(name: str, weights: Path) -> tuple["onnx.ModelProto", dict[str, np.ndarray]]:
    """The graph of `generator` or `lifter`, and its parity arrays `inputs/...`, `outputs/...`.

    weights: folder of `<name>.safetensors` and `examples.npz`.
    """
    import torch

    from pchmr_training.open_default.networks import load_network

    network, metadata = load_network(name, weights / f"{name}.safetensors")
    keypoints = torch.from_numpy(np.load(weights / "examples.npz")["keypoints"])
    program = torch.onnx.export(
        network,
        (keypoints,),
        input_names=["keypoints"],
        output_names=list(network.outputs),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    _store_as_float16(model)
    del model.metadata_props[:]
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=key, value=value)
    with torch.no_grad():
        outputs = network(keypoints)
    parity = {"inputs/keypoints": keypoints.numpy()}
    parity |= {
        f"outputs/{key}": out.numpy() for key, out in zip(network.outputs, outputs, strict=True)
    }
    return model, parity


def _store_as_float16(model: "onnx.ModelProto") -> None:
    """Keep large weights in float16, in which they were stored, and cast them when they are loaded.

    Runtimes fold the casts, so that all arithmetic stays float32. What the exporter noted about the
    Python source of each node is dropped.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, casts = model.graph, []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or array.size < LARGE:
            continue
        half, name = array.astype(np.float16), tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:], graph.value_info[:], graph.metadata_props[:]
    graph.node.extend(nodes)
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""


def write_networks(weights: Path, out: Path) -> None:
    """`<name>.onnx` and `<name>.parity.npz` of both networks into the folder `out`."""
    import onnx

    out.mkdir(parents=True, exist_ok=True)
    for name in ("generator", "lifter"):
        model, parity = export_network(name, weights)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, out / f"{name}.onnx")
        np.savez_compressed(out / f"{name}.parity.npz", **parity)  # type: ignore[arg-type]
        print(f"{out / name}.onnx: {(out / name).with_suffix('.onnx').stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    write_networks(options.weights, options.out)


if __name__ == "__main__":
    main()
