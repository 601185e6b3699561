#!/usr/bin/env bash
# The installed package: what it holds, what it shows, and that programs build against it with pkg-config
# and with find_package, and run.
#   package_test.sh BUILD-DIRECTORY C-COMPILER CXX-COMPILER
set -euo pipefail
build=$1
cc=$2
cxx=$3
here=$(cd "$(dirname "$0")" && pwd)
examples=$here/../../examples
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

cmake --install "$build" --prefix "$prefix" >"$work/install.log" || fail "$(<"$work/install.log")"
libdir=$(dirname "$(find "$prefix" -name kmcl.pc)")/..
library=$(find "$prefix" -name libkmcl.so)
for file in include/kmcl/kmcl.h include/kmcl/kmcl.hpp include/kmcl/endpoint.h include/kmcl/connect.h \
  include/kmcl/raw.h include/vmbuskernelmodeclientlibapi.h include/wdk/ntddk.h; do
  [[ -f $prefix/$file ]] || fail "$file was not installed"
done
[[ -f $libdir/libkmcl.a && -n $library ]] || fail 'a library was not installed'

# The shared library has a name for the loader, and shows C functions only.
readelf --dynamic --wide "$library" | grep -q 'SONAME.*\[libkmcl\.so\.[0-9]*\]' || fail 'no SONAME'
nm --dynamic --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' >"$work/shown"
others=$(grep -v '^[A-Z]' "$work/shown" || true)
[[ -z $others ]] || fail "libkmcl.so shows more than C functions:" "$others"
for name in VmbChannelAllocate VmbPacketSend KmclServerCreate KmclRawPeek KeGetCurrentIrql; do
  grep -qx "$name" "$work/shown" || fail "libkmcl.so does not show $name"
done

# A program of a user: with pkg-config. The C++ face, by every compiler that there is.
export PKG_CONFIG_PATH=$libdir/pkgconfig
read -ra flags <<<"$(pkg-config --cflags --libs kmcl)"
read -ra wdk_flags <<<"$(pkg-config --cflags --libs kmcl-wdk)"
warnings=(-Wall -Wextra -Wpedantic -Werror)
"$cc" -std=c11 "${warnings[@]}" "$examples/echo_server.c" -o "$work/server" "${flags[@]}"
"$cc" -std=c11 "${warnings[@]}" "$examples/echo_client.c" -o "$work/client" "${flags[@]}"
driver_warnings=("${warnings[@]}" -Wno-multichar -Wno-four-char-constants)  # of tags
"$cc" -std=c11 "${driver_warnings[@]}" "$here/driver.c" -o "$work/driver" "${wdk_flags[@]}"
"$cc" -std=c11 "${driver_warnings[@]}" "$examples"/ramdisk_{server,vsp}.c -o "$work/ramdisk_server" "${wdk_flags[@]}"
"$cc" -std=c11 "${driver_warnings[@]}" "$examples"/ramdisk_{client,vsc}.c -o "$work/ramdisk_client" "${wdk_flags[@]}"
for compiler in "$cxx" g++ clang++-19; do
  command -v "$compiler" >/dev/null || continue
  "$compiler" -std=c++23 "${warnings[@]}" -Wshadow "$examples/echo_server.cpp" \
    -o "$work/server_cpp" "${flags[@]}"
  "$compiler" -std=c++23 "${warnings[@]}" -Wshadow "$examples/echo_client.cpp" \
    -o "$work/client_cpp" "${flags[@]}"
done
export LD_LIBRARY_PATH=$libdir
"$examples/echo_test.sh" "$work/server" "$work/client"
"$examples/echo_test.sh" "$work/server_cpp" "$work/client_cpp"
"$work/driver" || fail 'the driver failed'
"$examples/ramdisk_test.sh" "$work/ramdisk_server" "$work/ramdisk_client" 1000 5
unset LD_LIBRARY_PATH

# And with find_package.
cmake -G Ninja -S "$here" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" -DEXAMPLES="$examples" \
  >"$work/configure.log" 2>&1 || fail "$(<"$work/configure.log")"
cmake --build "$work/build" >"$work/build.log" 2>&1 || fail "$(<"$work/build.log")"
"$examples/echo_test.sh" "$work/build/server" "$work/build/client"
"$examples/echo_test.sh" "$work/build/static_server" "$work/build/static_client"
"$work/build/driver" || fail 'the driver failed'
"$examples/ramdisk_test.sh" "$work/build/ramdisk_server" "$work/build/ramdisk_client" 1000 5

[[ ! -e $build/src/cli/vmbus ]] || "$prefix/bin/vmbus" --version | grep -q '^vmbus ' ||
  fail 'the installed vmbus does not start'
