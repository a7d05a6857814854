"""Settings for all tests."""

import torch
from hypothesis import settings

# Tests run in several processes; threads of PyTorch on top of these would wait for each other most of the time.
torch.set_num_threads(1)

# The same examples in every run: a failure must be repeatable.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("repeatable")
