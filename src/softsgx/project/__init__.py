"""What a user's project says for all runs in it."""
