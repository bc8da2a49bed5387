"""`dsa config migrate`: deprecated environment names become canonical ones, in files of many formats."""
