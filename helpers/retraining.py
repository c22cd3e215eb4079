"""Leave points out and train again: what an influence is held against."""
