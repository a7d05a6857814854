import sys

import torch
from torch import nn

from imdn_kd.config.imports import import_user_code
from imdn_kd.inference.fingerprint import fingerprint


def test_all_dtypes_and_shapes_count():
    def of(value):
        network = nn.Module()
        network.register_buffer("value", value)
        return fingerprint(network)

    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64)
    values = [torch.zeros(shape, dtype=dtype) for dtype in dtypes for shape in ((), (0,), (4,), (2, 2))]
    values += [torch.tensor([0.0, 1]), torch.tensor([1.0, 0]), torch.tensor([0.0, -0.0])]
    assert len({of(value) for value in values}) == len(values)
    assert of(torch.arange(6.0).view(2, 3).t()) == of(torch.arange(6.0).view(2, 3).t().contiguous())


def test_changed_code_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "my_fingerprinted.py"
    file.write_text("from torch import nn\nclass Net(nn.Module):\n    def forward(self, x): return x\n")
    import_user_code([str(file)], tmp_path, "test")
    network = sys.modules["my_fingerprinted"].Net()
    before = fingerprint(network)
    assert fingerprint(network) == before
    file.write_text(file.read_text().replace("return x", "return 2 * x"))
    assert fingerprint(network) != before
    monkeypatch.delitem(sys.modules, "my_fingerprinted")
