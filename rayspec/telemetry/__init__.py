"""What an operator sees: metrics of every process, and log lines."""
