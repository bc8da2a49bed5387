"""`dsa plan`: how much fits in the memory of the ranks of a deployment, and why."""
