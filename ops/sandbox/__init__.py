"""A sandbox network: a small Mastodon-compatible server, so that everybody can watch."""
