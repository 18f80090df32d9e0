"""One-step latent flow: from the latent of a picture to the latent of its object coordinates."""
