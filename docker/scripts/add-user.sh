#!/bin/sh
# The user that the image runs as, and its folder /data: add-user.sh [PREFIX]
# PREFIX stands before /etc and /data; the tests use it. Number 1000 is the first user's on a Jetson, so that files
# in a mounted folder belong to whom they should; a base image that has it already keeps its name for it.
set -eu
prefix=${1:-}
etc="$prefix/etc/passwd"
if ! grep -q '^[^:]*:[^:]*:1000:' "$etc"; then
  if [ -n "$prefix" ]; then
    useradd --prefix "$prefix" --uid 1000 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin robot
  else
    useradd --uid 1000 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin robot
  fi
fi
group=$(grep '^[^:]*:[^:]*:1000:' "$etc" | cut -d: -f4)
mkdir -p "$prefix/data"
chown "1000:$group" "$prefix/data"
