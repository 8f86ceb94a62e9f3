"""The doctor: facts about a training, the symptoms among them, their cause, and what to change."""
