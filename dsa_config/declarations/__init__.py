"""The settings that this project declares, one file per topic."""
