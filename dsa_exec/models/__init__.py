"""What ships with the project: a tiny model's configuration and a text to read. Data, no code."""
