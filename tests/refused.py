"""What a test says where bad input must be refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from imdn_kd.errors import InputError


@contextmanager
def refused(code: str) -> Iterator[pytest.ExceptionInfo[InputError]]:
    """Expect an `InputError` with this code; its lines are at hand in `.value.lines` of what is given."""
    with pytest.raises(InputError) as caught:
        yield caught
    assert caught.value.code == code, f"refused as {caught.value.code!r}: {caught.value}"
