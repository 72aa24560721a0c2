"""Extensions: each package needs one extra, and works with one other library."""
