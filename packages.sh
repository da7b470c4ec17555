#!/bin/sh
# Installs Debian packages: those named, else all of packages.txt. Without root or sudo it says which are missing.
set -u
here=$(dirname "$0")
wanted=${*:-$(sed -e 's/#.*//' "$here/packages.txt")}
missing=""
for name in $wanted; do
    command -v "$name" >/dev/null 2>&1 && continue # from elsewhere is as good, and Debian's own may conflict with it
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing="$missing $name"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then as_root=""; elif sudo -n true 2>/dev/null; then as_root="sudo"; else
    echo "missing Debian packages, tests that need them will skip: apt-get install$missing" >&2
    exit 0
fi
command -v apt-get >/dev/null || { echo "no apt-get here; install by hand:$missing" >&2; exit 0; }

echo "installing Debian packages:$missing"
# No daemon of a package starts by itself: the tests start their own, on their own ports.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null && $as_root chmod +x $policy
    trap '$as_root rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
install() { $as_root apt-get -qq -y --no-install-recommends install "$@" >/dev/null; }
$as_root apt-get -qq update
# One that cannot be had must not keep the others away: the tests that need it say so.
install $missing || for name in $missing; do
    install "$name" || echo "could not install the Debian package $name" >&2
done
