from __future__ import annotations

import pytest

from tests.training.small_runs import make_data


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """See `make_data`."""
    return make_data(tmp_path_factory.mktemp("data"))
