#!/bin/sh
# Make a virtual environment with rtda-deploy of a source tree in it:
#   install-wheel.sh PYTHON SOURCE VENV EXTRAS [--system [REQUIREMENT...]]
# EXTRAS are names with commas, or "none". --system lets the environment see the system's packages (a Jetson's OpenCV
# and TensorRT) and fails if anything was installed that would hide them; the requirements are installed too.
set -eu
[ "$#" -ge 4 ] || { echo "usage: install-wheel.sh PYTHON SOURCE VENV EXTRAS [--system [REQUIREMENT...]]" >&2; exit 2; }
python=$1 source=$2 venv=$3 extras=$4
shift 4
system=${1:-}
[ "$#" = 0 ] || shift
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

if [ "$system" = --system ]; then
  "$python" -m venv --system-site-packages "$venv"
else
  "$python" -m venv "$venv"
fi
pip="$venv/bin/python -m pip"

# Ubuntu 20.04's pip is 20.0.2 and knows no manylinux_2_28 wheels; 25.0 is the last line for Python 3.8.
$pip install --quiet --upgrade "pip>=23,<25.1"

wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
$pip wheel --quiet --no-deps --wheel-dir "$wheels" "$source"
wheel=$(echo "$wheels"/rtda_deploy-*.whl)

case ",$extras," in
  ,none,) ;;
  *,training,* | *,export,* | *,all,*)
    # torch first and exact, so that no other package chooses one.
    $pip install --quiet "$(grep '^torch==' "$source/constraints.txt")"
    ;;
esac
[ "$extras" = none ] || wheel="${wheel}[$extras]"
$pip install --quiet "$wheel" "$@"

if [ "$system" = --system ]; then
  hidden=$($pip list --format freeze --path "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    | grep -iE '^(opencv|tensorrt|nvidia-)' || true)
  [ -z "$hidden" ] || { echo "error: hides the system's own packages: $hidden" >&2; exit 1; }
fi
"$venv/bin/rtda-deploy" --version
find "$venv" -name __pycache__ -type d -prune -exec rm -rf {} +
