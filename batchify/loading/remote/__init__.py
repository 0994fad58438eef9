"""Open files at URLs: fetch them when their rows are read, keep them in a cache."""
