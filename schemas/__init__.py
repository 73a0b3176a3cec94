"""What crosses a process boundary: records, topics and the rule that says what a hold covers."""
