"""The publisher does it: fence, gate, ledger, channels; and the public page."""
