"""What a forward step needs beside the tensors: lengths, windows, metadata."""
