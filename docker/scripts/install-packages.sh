#!/bin/sh
# Install Debian packages and leave no lists behind: install-packages.sh PACKAGE...
# APT_CONFIG is apt's own way to change its settings; the tests simulate with it.
set -eu
[ "$#" -gt 0 ] || { echo "usage: install-packages.sh PACKAGE..." >&2; exit 2; }
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install --yes --no-install-recommends "$@"
apt-get clean
lists=$(apt-config shell lists Dir::State::lists/d)
eval "$lists"
find "$lists" -mindepth 1 -delete
