"""Models as MLflow serves them: code plus state dicts, no pickles."""
