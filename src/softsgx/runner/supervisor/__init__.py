"""Programs from exec to their end: who stops, and who serves the stop."""
