"""Formats of operations systems: one file each, bytes and settings in, disruptions out. No I/O."""
