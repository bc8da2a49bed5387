"""How much memory may be used, in plain integers: budgets and what fits in them."""
