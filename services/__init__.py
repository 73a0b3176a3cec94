"""The three services, the console, and the `interlock` command."""
