"""Measurements of softsgx: `make bench` prints them as a table and keeps it in bench/README.md."""
