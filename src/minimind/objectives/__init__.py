"""What a model is trained for: one file per idea, its formula and its paper at the top."""
