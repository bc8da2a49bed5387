"""What several GPUs gain: ways to share out the work of a step, beside one GPU that does all of it."""
