"""The command line: parsing, checks before a run, and error messages."""
