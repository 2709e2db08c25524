"""Published teachers, one file a family. None imports torch at module level: `unic teachers list` reads them all."""
