"""How any service runs: settings, broker, database, web, telemetry. No word of the domain."""
