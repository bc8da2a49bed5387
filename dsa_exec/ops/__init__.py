"""The ops, one folder each: `__init__.py` is the public function, `contract.py` what every backend must get right,
`on_<name>.py` a backend. No op imports another; one that is made of others reaches them through `dispatch`.
"""
