"""Show people what a file contains: summary, contact sheet, HTML report."""
