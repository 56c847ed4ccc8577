"""The machine it runs on: what it is, its cores, processes, and a Jetson's clocks, power and temperatures."""
