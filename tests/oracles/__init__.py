"""Loop oracles: what each op means, written as plainly as can be, importing nothing of the ops.

Each function takes the arguments of the op's public function and returns the named tensors of the op's contract.
"""
