"""Another server, asked from here: messages in, one answer out."""
