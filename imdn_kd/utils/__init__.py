"""Helpers without a domain: atomic files, threads, progress logs, text."""
