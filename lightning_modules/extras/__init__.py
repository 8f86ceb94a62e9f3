"""Modules for tasks beyond classification; no other file depends on this folder."""
