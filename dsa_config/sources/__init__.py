"""Sources of values: each turns the names of a setting into text and tells where the text was."""
