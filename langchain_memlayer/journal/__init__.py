"""The only truth: one SQL database to which everything is appended, and from which everything else can be rebuilt."""
