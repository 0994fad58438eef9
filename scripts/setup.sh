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

# install PIP-ARGUMENT...: install into the environment of $bin: with uv, which takes seconds, or
# with pip where uv does not install or finds no index (only pip reads pip's configuration).
install() {
  VIRTUAL_ENV=${bin%/*} "$bin/uv" pip install --quiet "$@" 2>/dev/null ||
    "$bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# make_venv FOLDER PIP-ARGUMENT...: make the environment if it is missing, or was made for
# another pyproject.toml, lock, place or Python, or with other arguments; set $bin to its commands,
# and $stamp to what it is made for. One that these scripts did not make is used as it is.
make_venv() {
  local folder=$1 python
  shift
  python=$(find_python) || return
  stamp="$("$python" -VV) $* $(cat "$top/pyproject.toml" "$top"/scripts/locks/*.txt | cksum) $top"
  bin=$(venv_bin "$folder")
  if [ -d "$folder" ] && [ ! -e "$folder/made-for" ]; then
    install "$@"
  elif [ "$(cat "$folder/made-for" 2>/dev/null)" != "$stamp" ]; then
    echo "setting up $folder" >&2
    rm -rf "$folder"
    "$python" -m venv "$folder" || return
    touch "$folder/made-for"  # empty, it says that these scripts made it and have not finished
    "$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
      "$(grep '^uv==' "$top/scripts/locks/dev.txt")" || echo "scripts: without uv, pip takes minutes" >&2
    install "$@" || return
    echo "$stamp" >"$folder/made-for"
  fi
}

# make_dev_venv: make .venv, with the locked versions of all that the tests need but the frameworks;
# where these do not install, as on a newer Python, with those that do.
make_dev_venv() {
  find_python >/dev/null || return
  make_venv .venv --no-deps -r scripts/locks/dev.txt -e . && return
  install -e '.[dev]' || return
  if [ -e .venv/made-for ]; then
    echo "$stamp" >.venv/made-for
  fi
}

# add_torch: install PyTorch, torchvision and torchdata into the environment of $bin; those for the
# CPU alone, where their own index can be reached. With pip, which also finds them where pip's
# configuration says.
add_torch() {
  local index=https://download.pytorch.org/whl/cpu
  # shellcheck disable=SC2046  # one requirement a word
  set -- $(sed -n 's/^  "\(torch[a-z]*[=>]=[^"]*\)".*/\1/p' "$top/pyproject.toml")
  if "$bin/python" -c 'import sys, importlib.util as u; sys.exit(not u.find_spec("torchdata"))'; then
    return
  fi
  if "$bin/python" -c "import urllib.request as r; r.urlopen('$index', timeout=5)" 2>/dev/null; then
    set -- "$@" --extra-index-url "$index"
  fi
  "$bin/python" -m pip install --quiet --disable-pip-version-check "$@"
  "$bin/python" - <<'PY'  # transforms need no operators, which may be compiled for CUDA alone
import importlib.util, subprocess, sys
if subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode:
    [folder] = importlib.util.find_spec("torchvision").submodule_search_locations
    with open(f"{folder}/extension.py", "a") as file:
        for name in ("nms", "qnms"):
            file.write(f'torch.library.define("torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")\n')
PY
}

# add_browser: where no Chromium or Chrome is installed, put a headless one into .venv-browser, for
# the tests that open pages: no root is needed, and all environments share it. From npm, with its
# libraries and a font, on Linux; else, or where there is no npm, as playwright installs its own.
add_browser() {
  local folder=$top/.venv-browser
  if "$bin/python" "$top/tests/helpers/browser.py" >/dev/null 2>&1 || [ -e "$folder/tried" ]; then
    return
  fi
  echo "setting up $folder" >&2
  rm -rf "$folder"
  mkdir "$folder"
  if [ "$(uname -sm)" = "Linux x86_64" ] && command -v npm >/dev/null; then  # which brings node
    npm_browser "$folder" || true
  fi
  if ! "$bin/python" "$top/tests/helpers/browser.py" >/dev/null 2>&1; then
    PLAYWRIGHT_BROWSERS_PATH=$folder PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT=10000 \
      "$bin/python" -m playwright install --only-shell chromium >/dev/null 2>&1 || true
  fi
  if ! "$bin/python" "$top/tests/helpers/browser.py" >/dev/null; then
    touch "$folder/tried"
  fi
}

# npm_browser FOLDER: unpack the Chromium of a package of npm, which checks what it downloads.
# Each step says that it ends there: under `||`, as this is called, bash knows no set -e.
npm_browser() (
  cd "$1" || return
  npm pack --silent '@sparticuz/chromium@153.0.0' >/dev/null || return
  tar --no-same-owner -xzf sparticuz-chromium-153.0.0.tgz || return
  node - <<'JS' || return
const fs = require("node:fs");
const { brotliDecompressSync } = require("node:zlib");
for (const name of ["chromium", "al2023.tar", "fonts.tar"]) {
  fs.writeFileSync(name, brotliDecompressSync(fs.readFileSync(`package/bin/${name}.br`)));
}
JS
  tar --no-same-owner -xf al2023.tar || return
  tar --no-same-owner -xf fonts.tar || return
  rm -rf package ./*.tgz ./*.tar
  chmod +x chromium || return
  cat >fonts.conf <<XML
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir prefix="relative">fonts</dir><cachedir prefix="xdg">fontconfig</cachedir></fontconfig>
XML
  cat >run <<'SH'
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
LD_LIBRARY_PATH=$here/lib FONTCONFIG_FILE=$here/fonts.conf exec "$here/chromium" "$@"
SH
  chmod +x run
)
