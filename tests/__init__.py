"""The tests, in rooms that mirror those of src/softsgx."""
