"""Modules beyond plain classification. Only ``lightning_modules/__init__.py`` imports them, to export their names."""
