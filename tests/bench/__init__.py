"""Benchmarks: `./run bench NAME` prints what, aim, measured, met; ratios within one run."""
