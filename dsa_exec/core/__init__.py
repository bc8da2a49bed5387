"""What everything else stands on: errors, argument checks, hardware facts, number formats. Imports nothing eagerly."""
