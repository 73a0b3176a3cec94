"""The stranded-train evening: the whole promise in one minute, judged from outside."""
