"""6D pose of any object from one reference picture: matching, one-step latent flow, registration, tracking."""
