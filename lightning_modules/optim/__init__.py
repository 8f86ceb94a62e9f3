"""Param groups, their optimizer and their schedules."""
