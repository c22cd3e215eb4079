"""How the book is made: `env` prepares Python, `execute` runs the chapters, `build` renders them, `serve` previews."""
