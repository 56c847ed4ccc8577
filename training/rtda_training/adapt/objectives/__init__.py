"""Objectives: terms of the loss, one file each. Every one reads the step's shared outputs and gives one scalar."""
