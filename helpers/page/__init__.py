"""What the pages of the book need beside the mathematics: checks, figures, numbers for the text, a session."""
