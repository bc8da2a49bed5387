"""Memory and time of a model on our attention beside plain transformers, and how far the tiny model's texts agree."""
