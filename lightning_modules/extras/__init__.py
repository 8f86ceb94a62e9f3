"""Modules beyond plain classification; nothing else imports them. docs/options.md lists how to delete each."""
