"""Read costs: the contenders, how they are timed in turn, what they must reach, and how it is shown."""
