"""What people look at: the result schema, comparison tables, numeric verdicts and pictures."""
