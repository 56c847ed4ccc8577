"""Speed, power and heat of BiSeNet on a Jetson, measured on the board with one command."""
