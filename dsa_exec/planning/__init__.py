"""From measured kernel times and link bandwidths to throughput and memory of deployments that nobody has run."""
