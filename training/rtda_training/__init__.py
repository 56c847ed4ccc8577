"""Training: from a labelled synthetic domain and unlabelled target footage to an adapted BiSeNet."""
