"""Programs from exec to their end: stops of their threads, and who serves each."""
