"""What a person sees in a terminal: text as it is written, tables, progress."""
