"""What a study's server consists of; `python -m study_app.deploy` starts the application, here and in the image."""
