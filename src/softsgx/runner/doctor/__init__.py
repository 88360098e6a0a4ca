"""What the supervisor needs of the machine, and whether it is there."""
