"""Show what a file contains: summary, contact sheet, HTML report."""
