"""What everything is computed from: moments, regressions, characteristic curves, knees."""
