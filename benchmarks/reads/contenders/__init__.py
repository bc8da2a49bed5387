"""One file per contender, found by itself: each has `CONTENDERS`."""
