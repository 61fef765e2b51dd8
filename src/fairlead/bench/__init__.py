"""The laboratory's measurements: metrics, evaluation by split, reports and plots."""
