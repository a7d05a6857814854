"""Settings for all tests."""

import signal
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import register_random, settings

# Tests run in several processes; threads of PyTorch on top of these would wait for each other most of the time.
torch.set_num_threads(1)

# In the background (`nohup make test &`) SIGINT and SIGHUP are ignored, and processes that tests start inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The same examples in every run: a failure must be repeatable.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("few", settings.get_profile("repeatable"), max_examples=20)
settings.load_profile("repeatable")


class TorchRandom:
    """PyTorch's generator on the CPU, with the methods by which Hypothesis seeds a generator before every example.

    `torch.manual_seed` seeds other devices as well, and takes a thousand times as long.
    """

    def seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)

    def getstate(self) -> torch.Tensor:
        return torch.get_rng_state()

    def setstate(self, state: Any) -> None:
        torch.set_rng_state(state)


torch_random = TorchRandom()  # Hypothesis keeps only a weak reference
register_random(torch_random)


@pytest.fixture(autouse=True)
def seed_torch() -> None:
    """Random data of a test depend on nothing that ran before it."""
    torch_random.seed(0)


@pytest.fixture(autouse=True)
def only_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are run by PyTorch, whatever is installed, where a test does not name another engine."""
    monkeypatch.setattr("imdn_kd.inference.engines.choice.installed", lambda: ("torch",))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Why tests were skipped: one line for each reason."""
    reasons = (report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()))
    for reason, count in Counter(reasons).most_common():
        terminalreporter.write_line(f"{count} x {reason}")
