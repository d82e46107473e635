"""Speed and memory beside what a user would run instead, both in one call, as ratios."""
