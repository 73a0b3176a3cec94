"""Tests: pure ones, promises on real engines, contracts, integration, and the tidy test."""
