#!/usr/bin/env bash
# Each public header compiles alone, as C11 and as C++23, by gcc and by clang, without a warning; and so does
# a driver's source, whether it includes KMCL under our name or under Microsoft's.
#   headers_test.sh BUILD-DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
include=$PWD/include

for name in kmcl/kmcl.h vmbuskernelmodeclientlibapi.h; do
  cat >"$work/driver-${name//\//-}" <<END
#include <$name>

static EVT_VMB_CHANNEL_OPENED Opened;
static EVT_VMB_CHANNEL_PROCESS_PACKET ProcessPacket;

static NTSTATUS Opened(VMBCHANNEL Channel) {
    return VmbChannelGetPointer(Channel) != NULL ? STATUS_SUCCESS : STATUS_INVALID_DEVICE_STATE;
}

static VOID ProcessPacket(VMBCHANNEL Channel, VMBPACKETCOMPLETION Packet, PVOID Buffer, UINT32 BufferLength,
                          UINT32 Flags) {
    UNREFERENCED_PARAMETER(Channel);
    UNREFERENCED_PARAMETER(Flags);
    VmbChannelPacketComplete(Packet, Buffer, BufferLength);
}

NTSTATUS Configure(VMBCHANNEL Channel);
NTSTATUS Configure(VMBCHANNEL Channel) {
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
    PFN_VMB_CHANNEL_ENABLE enable = VmbChannelEnable;
    NTSTATUS status;

    VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
    callbacks.EvtChannelOpened = Opened;
    status = VmbChannelInitSetStateChangeCallbacks(Channel, &callbacks);
    if (NT_SUCCESS(status)) {
        status = VmbChannelInitSetProcessPacketCallbacks(Channel, ProcessPacket, NULL);
    }
    return NT_SUCCESS(status) ? enable(Channel) : status;
}
END
done

first_of() { # NAME...: the first that is there
  command -v "$@" | head -n 1 || true
}

compiled=0
failures=0
compile() { # COMPILER LANGUAGE STANDARD FILE
  compiled=$((compiled + 1))
  if ! "$1" -x "$2" -std="$3" -Wall -Wextra -pedantic-errors -Werror -fsyntax-only -I "$include" "$4"; then
    printf '%s -std=%s: does not compile: %s\n' "$1" "$3" "$4"
    failures=$((failures + 1))
  fi
}

# Of each compiler the first name that is there; whichever lacks is said.
compilers=0
for family in gcc clang; do
  if [[ $family == gcc ]]; then
    c=$(first_of gcc-12 gcc) cpp=$(first_of g++-12 g++)
  else
    c=$(first_of clang-19 clang) cpp=$(first_of clang++-19 clang++)
  fi
  if [[ -z $c || -z $cpp ]]; then
    echo "not here: $family"
    continue
  fi
  compilers=$((compilers + 1))
  while IFS= read -r header; do
    printf '#include <%s>\n' "${header#include/}" >"$work/alone"
    compile "$c" c c11 "$work/alone"
    compile "$cpp" c++ c++23 "$work/alone"
  done < <(find include -name '*.h' | sort)
  for source in "$work"/driver-*; do
    compile "$c" c c11 "$source"
    compile "$cpp" c++ c++23 "$source"
  done
done
((compilers > 0)) || exit 77
((failures == 0)) || exit 1
echo "$compilers compilers, $compiled compilations"
