"""Helpers without a domain: atomic files, threads, journals."""
