"""What people look at: summary, contact sheet, HTML report."""
