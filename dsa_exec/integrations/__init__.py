"""Other people's frameworks, one folder each. The only place that imports them."""
