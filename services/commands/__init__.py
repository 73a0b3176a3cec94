"""Groups of the `interlock` command that are too large to stand in `cli.py`."""
