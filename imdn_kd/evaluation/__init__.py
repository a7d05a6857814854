"""Judging models: metrics, benchmarks, costs."""
