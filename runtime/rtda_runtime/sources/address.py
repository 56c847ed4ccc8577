"""Addresses of sources, fit to be shown: without their passwords."""

from __future__ import annotations

from rtda_deploy.masking import mask_password

__all__ = ["mask_password"]
