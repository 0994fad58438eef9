# Sourced by the other scripts: makes a virtual environment and installs batchify into it.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# find_python: print the first Python of 3.11 or later. PYTHON=... names one.
find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "scripts: no Python of 3.11 or later is on the PATH; install one, or set PYTHON" >&2
  return 1
}

# venv_bin FOLDER: print the folder of its commands.
venv_bin() {
  case $(uname -s) in
    MINGW* | MSYS* | CYGWIN*) echo "$1/Scripts" ;;
    *) echo "$1/bin" ;;
  esac
}

# make_venv FOLDER PIP-ARGUMENT...: make the environment where it is not there, or was made for
# another pyproject.toml, place or Python, or with other arguments; set $bin to its commands.
# One that these scripts did not make is used as it is.
make_venv() {
  local folder=$1 python stamp
  shift
  python=$(find_python)
  stamp="$("$python" -VV) $* $(cksum <"$top/pyproject.toml") $top"
  bin=$(venv_bin "$folder")
  if [ -d "$folder" ] && [ ! -e "$folder/made-for" ]; then
    "$bin/python" -m pip install --quiet --disable-pip-version-check "$@"
  elif [ "$(cat "$folder/made-for" 2>/dev/null)" != "$stamp" ]; then
    echo "setting up $folder" >&2
    rm -rf "$folder"
    "$python" -m venv "$folder"
    "$bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    echo "$stamp" >"$folder/made-for"
  fi
}

# add_frameworks PIP-ARGUMENT...: install what the tests train with into the environment of $bin,
# where it installs; that of PyTorch for the CPU alone, where its own index can be reached.
add_frameworks() {
  local stamp index=https://download.pytorch.org/whl/cpu
  stamp="$* $(cksum <"$top/pyproject.toml")"
  if [ "$(cat "$bin/../frameworks-for" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  if "$bin/python" -c "import urllib.request as r; r.urlopen('$index', timeout=5)" 2>/dev/null; then
    set -- "$@" --extra-index-url "$index"
  fi
  if "$bin/python" -m pip install --quiet --disable-pip-version-check "$@" -e "$top[frameworks]"; then
    echo "$stamp" >"$bin/../frameworks-for"
  else
    echo "scripts: PyTorch, Keras, grain and datasets do not install here; their tests are skipped" >&2
  fi
}
