"""The pool's decisions: which windows form the next batch, and what overload sheds."""
