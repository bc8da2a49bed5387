"""Ops over the grid of sizes that are served: `auto` beside each backend named, the vendors and the floor."""
