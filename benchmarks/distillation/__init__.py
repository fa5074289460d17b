"""What `lightcone bench distill` compares: densities with exact samples, digits, and the distances between samples."""
