"""Exported files against PyTorch, run by their own runtimes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imdn_kd.inference.export.job import export_model
from imdn_kd.inference.export.parity import SIZES, parity_sizes
from imdn_kd.inference.model_file import ModelFile
from imdn_kd.registry import ARCHS
from tests.inference.test_cropping import lively, random_image
from tests.inference.test_engines import NETWORKS


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_itself_in_onnx(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    network = lively(ARCHS.build({"type": name, **NETWORKS[name]}).eval())
    made = export_model(ModelFile(network), "onnx", tmp_path / "a.onnx", name="a")
    assert len(parity_sizes(network.info)) == SIZES
    session = runtime.InferenceSession((tmp_path / "a.onnx").read_bytes())
    image = torch.cat([random_image(24, 32), random_image(24, 32).flip(3)])
    with torch.no_grad():
        expected = network(image).numpy()
    (found,) = session.run(["sr"], {"image": image.numpy()})
    assert np.abs(found - expected).max() <= 1e-4
    said = session.get_modelmeta().custom_metadata_map
    assert said == made.metadata
    assert (said["scale"], said["value_range"], said["colours"]) == (str(network.info.scale), "1", "RGB")
    assert int(said["receptive_radius"]) == network.info.receptive_radius
