#!/usr/bin/env bash
# script/check-rooms must pass over this tree, and must object to each kind of forbidden include.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A small tree that obeys, to be spoilt in one place at a time.
fresh_tree() {
  rm -rf "$work/tree"
  mkdir -p "$work"/tree/{include/kmcl,examples} \
    "$work"/tree/src/{wire,ring,bus,transport,channel,endpoint,api,devices,cli}
  cd "$work/tree"
  printf '#include <kmcl/kmcl.h>\n#include <stdint.h>\n' >include/kmcl/endpoint.h
  printf '#include <kmcl/endpoint.h>\n' >examples/echo.c
  printf '#include <expected>\n' >src/result.h
  printf '#include <atomic>\n\n#include "result.h"\n' >src/wire/ids.h
  printf '#include "ring/ring.h"\n#include "transport/link.h"\n#include "wire/ids.h"\n' \
    >src/channel/channel.h
  printf '#include <kmcl/kmcl.h>\n#include "channel/channel.h"\n#include "endpoint/client.h"\n' \
    >src/api/vmb.cc
  printf '#include <fmt/core.h>\n#include <kmcl/endpoint.h>\n#include "devices/echo.h"\n' >src/cli/main.cc
  printf '#include <gtest/gtest.h>\n#include "ring/ring.h"\n#include "ring/picture.h"\n' \
    >src/ring/ring_test.cc
  printf '#include <gtest/gtest.h>\n' >src/ring/picture.h
  printf '#include "ring/ring.h"\n' >src/endpoint/client_test.cc
  printf 'kmcl_room(channel USES ring\n  wire transport SOURCES a.cc TESTS a_test.cc)  # good\n' \
    >src/channel/CMakeLists.txt
  printf '# kmcl_room(wire USES bus)\n' >src/wire/CMakeLists.txt
}

failures=0
expect_refused() { # FILE LINE-OF-CODE EXPECTED-OUTPUT
  fresh_tree
  mkdir -p "$(dirname "$1")"
  printf '%s\n' "$2" >>"$1"
  local output status=0
  output=$("$root/script/check-rooms" "$work/tree") || status=$?
  if ((status == 0)) || [[ $output != *"$3"* ]]; then
    printf 'not refused: %s in %s\n  wanted: %s\n  seen (%d): %s\n' "$2" "$1" "$3" "$status" "$output"
    failures=$((failures + 1))
  fi
}

fresh_tree
"$root/script/check-rooms" "$work/tree" || {
  echo 'the tree that obeys was refused'
  failures=1
}

expect_refused src/wire/ids.h '#include "ring/ring.h"' 'src/wire/ids.h:4: wire may not use ring'
expect_refused src/ring/ring.h '#include "bus/server.h"' 'src/ring/ring.h:1: ring may not use bus'
expect_refused src/bus/server.h '#include "transport/link.h"' 'src/bus/server.h:1: bus may not use'
expect_refused src/transport/link.h '# include "ring/ring.h"' 'src/transport/link.h:1: transport may'
expect_refused src/channel/channel.h '#include "endpoint/client.h"' 'src/channel/channel.h:4: channel'
expect_refused src/channel/channel.h '#include <wire/ids.h>' 'src/channel/channel.h:4: write "wire/ids.h"'
expect_refused src/endpoint/client.h '#include "api/vmb.h"' 'src/endpoint/client.h:1: endpoint may not'
expect_refused src/endpoint/client.h '#include "ring/ring.h"' 'src/endpoint/client.h:1: endpoint may'
expect_refused src/ring/hostile_test.cc '#include "bus/server.h"' 'src/ring/hostile_test.cc:1: ring may'
expect_refused src/api/vmb.cc '#include "bus/client.h"' 'src/api/vmb.cc:4: api may not use bus'
expect_refused src/wire/ids.h '#include <kmcl/kmcl.h>' 'src/wire/ids.h:4: wire may not use the public'
expect_refused src/result.h '#include "wire/ids.h"' 'src/result.h:2: src may not use wire'
expect_refused src/devices/echo.h '#include "result.h"' 'src/devices/echo.h:1: devices is written'
expect_refused src/devices/echo.h '#include "channel/channel.h"' 'src/devices/echo.h:1: devices may not'
expect_refused src/cli/main.cc '#include "transport/link.h"' 'src/cli/main.cc:4: cli may not use'
expect_refused src/bus/server.h '#include <fmt/core.h>' 'src/bus/server.h:1: bus may not use the library'
expect_refused src/ring/ring.cc '#include <gtest/gtest.h>' 'src/ring/ring.cc:1: only tests may use'
expect_refused src/ring/ring.h '#include <gmock/gmock.h>' 'src/ring/ring.h:1: only tests may use'
expect_refused src/ring/ring.cc '#include "../wire/ids.h"' 'src/ring/ring.cc:1: includes are relative'
expect_refused src/ring/ring.cc '#include "ring.h"' 'src/ring/ring.cc:1: includes are relative'
expect_refused src/ring/ring.cc '#include "util/text.h"' 'src/ring/ring.cc:1: no room of that name'
expect_refused src/ring/ring.cc '#include RING' 'src/ring/ring.cc:1: an include that is neither'
expect_refused src/util/text.h '#include <string>' 'src/util/text.h:1: "util" is not a room'
expect_refused include/kmcl/endpoint.h '#include "result.h"' 'include/kmcl/endpoint.h:3: may use only'
expect_refused include/kmcl/endpoint.h '#include <wire/ids.h>' 'include/kmcl/endpoint.h:3: may use only'
expect_refused examples/echo.c '#include "api/vmb.h"' 'examples/echo.c:2: may use only'
expect_refused src/wire/CMakeLists.txt 'kmcl_room(wire USES ring SOURCES a.cc)' 'wire may not link ring'
expect_refused src/ring/CMakeLists.txt 'kmcl_room(ring SOURCES a.cc USES wire bus)' 'ring may not link bus'

"$root/script/check-rooms" "$root" || {
  echo 'the rooms of this tree are out of order'
  failures=$((failures + 1))
}
exit $((failures > 0))
