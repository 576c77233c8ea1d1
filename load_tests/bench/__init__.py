"""Parts of the engine benchmark: systems, their processes, measurements, table and plot."""
