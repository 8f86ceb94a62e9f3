"""Run directories: their names, configs, records, metrics and results. Imports no torch."""
