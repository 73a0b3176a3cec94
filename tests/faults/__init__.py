"""Real engines, real processes, and everything that can be done to them while the promise is watched."""
