"""What is derived from the declarations: documents for editors and people."""
