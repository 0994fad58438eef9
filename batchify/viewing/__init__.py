"""A local page that shows the rows of a file: browse, search, look closely, mark."""
