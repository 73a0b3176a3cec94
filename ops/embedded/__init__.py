"""Real Kafka and real PostgreSQL on a bare machine, without Docker and without root."""
