"""The real code of detector and publisher on one thread, in a made-up time, with every fault we can draw."""
