"""Exact resume, proven by killing: `python -m benchmarks.kills`."""
