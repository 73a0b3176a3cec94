"""The detector decides whether: it folds the log of disruptions into incidents, holds and updates."""
