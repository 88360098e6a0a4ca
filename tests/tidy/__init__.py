"""The repository's rules, from a source text to findings; tests/test_tidy.py runs them."""
