"""Every figure of the project: what measures it, keeps it and shows it (`echolith bench`)."""
