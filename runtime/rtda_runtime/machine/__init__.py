"""The machine it runs on: what it is, its cores, processes, and what a Jetson tells of itself."""
