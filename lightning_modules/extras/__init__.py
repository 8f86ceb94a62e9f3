"""Modules beyond plain classification; nothing else imports them. docs/extras.md lists how to delete each."""
