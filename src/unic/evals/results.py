"""What an evaluation gives. `Result` stands in core/, because model cards and reports read results too."""

from unic.core.results import Result as Result
