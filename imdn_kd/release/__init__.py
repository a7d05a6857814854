"""From a finished run to a published model with its card."""
