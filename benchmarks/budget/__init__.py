"""What the logits budget costs on each call, and that memory stays within it when there is little."""
