"""Students as they are saved: by this project, as published, in DINOv2's format; and their way to other libraries."""
