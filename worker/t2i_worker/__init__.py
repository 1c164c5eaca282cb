"""One device, one warm model: requests at mixed timesteps share every forward, images stream out."""
