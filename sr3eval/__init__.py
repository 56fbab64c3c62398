"""Compare image super-resolution models: SR3, baselines, metrics, benchmark."""

__version__ = "0.1.0"
