"""`dsa doctor`: what this machine has, what would run each op and why, and what is wrong."""
