"""See CONTRIBUTING.md for what stands where."""
