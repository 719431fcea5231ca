"""The analyst example: questions over a warehouse, answered in SQL; see README.md."""
