"""The playground: one page that draws images, shows the pool and puts load on it. Served by the HTTP door, if asked."""
