"""Ground floor: the vocabulary (records, errors) and the archive (database, journal, readers, exporters)."""
