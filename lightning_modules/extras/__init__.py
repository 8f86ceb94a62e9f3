"""Modules beyond classification; none of the other files needs this folder."""
