"""Programs from exec to their end: the stops of their threads, and which room serves each."""
