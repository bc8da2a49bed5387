"""The ops on a GPU: checked first, then timed with a cold L2 on inputs that rotate, in one run with the vendors'."""
