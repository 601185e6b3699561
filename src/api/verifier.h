// The hooks of the verifier (kmcl/verifier.h) in the functions of the C edge.
//
// On the packet path there are none: a watched object is made so that a check which is there anyway
// refuses it (a packet by its send_limit and in_caller_memory, a received packet by not being
// outstanding), and the refusal is looked at here. Everywhere else a hook is one line, behind
// KMCL_VERIFIER_ON.
#pragma once

#include <kmcl/kmcl.h>

#include <atomic>
#include <functional>

namespace kmcl::channel {
struct IncomingPacket;
}  // namespace kmcl::channel
namespace kmcl::api {
class ChannelObject;
struct DeviceBinding;
}  // namespace kmcl::api

// 0 when the library is built without the verifier: nothing behind it is then needed to link. That is why
// KMCL_VERIFIER_ON stands first in each condition.
#ifndef KMCL_WITH_VERIFIER
#define KMCL_WITH_VERIFIER 1
#endif
#define KMCL_VERIFIER_ON (KMCL_WITH_VERIFIER && ::kmcl::api::verifier::IsOn())
// Where a public function was called from.
#define KMCL_CALLER __builtin_return_address(0)

namespace kmcl::api::verifier {

extern std::atomic<bool> is_on;
inline bool IsOn() { return is_on.load(std::memory_order_relaxed); }

// VmbChannelAllocate comes first: reads KMCL_VERIFIER once. True: the channel is to be watched.
bool Attach();
// The channel to hand out. Throws std::bad_alloc. `parent` is an endpoint's.
ChannelObject* MakeChannel(PDEVICE_OBJECT parent, const void* caller);
// A channel was made, or is about to be, that the verifier does not watch.
void MadeUnwatched();
// Instead of `delete`, of a Disabled channel.
void Discard(ChannelObject& object, const void* caller);

// Each of these is asked first. False: the call is a violation and does nothing, or fails.
enum class Blocks : bool { kNo, kYes };
// VmbChannelEnable, Disable, Start, Pause, Cleanup and the like: not from any callback.
bool MayChangeState(VMBCHANNEL channel, const char* function, const void* caller);
// Calls at PASSIVE_LEVEL that some callbacks may make.
bool IsAtPassive(VMBCHANNEL channel, const char* function, const void* caller);
bool MaySendSynchronously(VMBCHANNEL channel, Blocks blocks, const void* caller);
bool IsChannel(VMBCHANNEL channel, const char* function, const void* caller);
bool MayDestroy(const DeviceBinding& binding, const char* function, const void* caller);
// An Init function was refused.
void OutsideInitWindow(VMBCHANNEL channel, bool wrong_end);
// VmbChannelCleanup of a channel that is not Disabled.
void CleanupOfEnabled(VMBCHANNEL channel, const void* caller);
// A NULL where a packet is asked for.
void NullPacket(const char* function, const void* caller);

// What the sending functions, VmbPacketFree and VmbPacketInitialize do with watched packets. `send` is
// the function itself, without the verifier.
NTSTATUS Send(VMBPACKET packet, UINT32 flags, const char* function,
              const std::function<NTSTATUS()>& send, const void* caller);
void Free(VMBPACKET packet, const void* caller);
NTSTATUS Initialize(VMBCHANNEL channel, VMBPACKET memory, const void* caller);
// The library's own packet behind a received one that is watched; nullptr if it is retired already,
// which is told.
channel::IncomingPacket* Delivered(VMBPACKETCOMPLETION packet, const char* function,
                                   const void* caller);
// VmbPacketRestore has put it in flight.
void Restored(VMBPACKET packet, const void* caller);
void CompletionTooLong(VMBPACKETCOMPLETION packet, UINT32 bytes, UINT32 limit, const void* caller);

// A GPADL was created or mapped; deleted or unmapped; refused a second map; given back without being there.
void GpadlTaken(VMBCHANNEL channel, UINT32 gpadl);
void GpadlReturned(VMBCHANNEL channel, UINT32 gpadl);
void GpadlNotMapped(VMBCHANNEL channel, UINT32 gpadl);
void GpadlUnbalanced(VMBCHANNEL channel, UINT32 gpadl, const char* function);

}  // namespace kmcl::api::verifier
