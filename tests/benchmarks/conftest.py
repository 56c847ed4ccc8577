from __future__ import annotations

from narrow import narrow_networks

narrow_networks()
