"""The fence protocol as a model, checked by Spin. README.md is for whoever knows neither."""
