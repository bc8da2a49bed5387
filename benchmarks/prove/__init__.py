"""Runs the conformance suite on a GPU, several ops at a time, and writes down what passed."""
