"""Steps from an archive or a folder to index files, statistics and cache, each safe to run again."""
