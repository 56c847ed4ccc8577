"""From frame to network input, and from the network's answer to the mask and what is read off it."""
