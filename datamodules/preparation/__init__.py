"""Create index files, statistics and cache from an archive or a folder; each step is safe to run again."""
