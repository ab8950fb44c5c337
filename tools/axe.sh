#!/bin/sh
# Usage: tools/axe.sh DIR
# Puts axe-core, which judges whether people can use a page, into DIR/axe.min.js.
set -eu
version=4.14.1
mkdir -p "$1"
cd "$1"
command -v npm >/dev/null 2>&1 || {
    echo "make: npm is needed to get axe-core. On Debian and Ubuntu: apt-get install npm" >&2
    exit 1
}
echo "Getting axe-core $version ..."
npm pack --silent "axe-core@$version" >/dev/null
tar -xzf "axe-core-$version.tgz" package/axe.min.js
mv package/axe.min.js axe.min.js
rm -r package "axe-core-$version.tgz"
touch axe.min.js
