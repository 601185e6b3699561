// What a fallible function returns, and the closed list of what can go wrong.
//
// Four kinds of outcome are told apart by type (docs/architecture.md, "Errors"):
//   * an ordinary outcome (empty, full, not yet) is an optional or a small enum, never an Error;
//   * the caller's fault and the peer's fault are Errors;
//   * our own fault is KMCL_CHECK, which stays on in release builds.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <expected>

namespace kmcl {

// Each value is named after the rule that was broken. api/status_map.cc turns every one of them into
// an NTSTATUS, by a switch that stops compiling when a value is missing.
enum class Error : unsigned char {
  // wire: bytes that do not form a value.
  kMessageTooShort,          // fewer bytes than the message's header or structure
  kMessageTooLong,           // more than a control message can carry
  kMessageUnknown,           // a number that no version defines
  kMessageWrongDirection,    // a number that only the other side may send
  kMessageNotInVersion,      // defined, but not in the version or feature set that was agreed
  kFieldOutOfRange,          // a field holds a value that the protocol does not allow
  kVersionUnknown,           // a protocol version that is not in the table
  kPacketTypeUnknown,        // a ring packet type that the protocol does not define
  kPacketFlagsUnknown,       // a ring packet flag that the protocol does not define
  kPacketOffsetOutOfRange,   // data_offset8 outside [descriptor, length8]
  kPacketLengthOutOfRange,   // length8 is larger than what the ring holds
  kPacketHeaderTooShort,     // the type-specific header does not fit before data_offset8
  kGpaRangeMalformed,        // an empty range, an offset beyond a page, an overflow, or missing pages
  kPipeHeaderMalformed,      // unknown pipe packet type, or a length beyond the packet

  // ring: control words that a correct peer never writes.
  kRingIndexOutOfRange,      // an index at or beyond the data size, or not a multiple of 8
  kRingGeometry,             // control page and data area do not form a ring
  kPacketTooLong,            // a packet that this ring, or this reader's buffer, can never hold

  // bus: a message or request that the state does not allow.
  kNotConnected,             // no version was agreed on yet, or the connection is gone
  kAlreadyConnected,
  kChannelUnknown,           // no channel with that id on this connection
  kChannelState,             // the channel exists, but its state refuses this
  kChannelIdsExhausted,      // all 2,047 ids are in use
  kOfferDuplicate,           // same interface, instance and sub-channel index
  kOfferWithoutPrimary,      // a sub-channel of a device that is not offered
  kGpadlUnknown,
  kGpadlDuplicate,
  kGpadlState,               // not accepted yet, mapped already, or already being torn down
  kGpadlReadOnly,            // to be written to, but its owner only wants it read
  kGpadlTooLarge,
  kRequestPending,           // the same request is already on its way
  kVersionRefused,           // the peer supports none of our versions
  kLimitExceeded,            // the peer asked for more than the configuration grants
  kPaused,                   // the client asked for silence, and spoke before it resumed
  kNotPaused,                // RESUME without a pause
  kAnswerUnexpected,         // an answer to a request that nobody made

  // transport: the other side, or the system, does not let us.
  kProcessorUnusable,        // a thread of ours may not run there
  kAddressMalformed,         // neither local:NAME nor unix:PATH
  kAddressInUse,             // a live server owns the address
  kAddressUnreachable,       // nobody serves the address
  kPermissionDenied,
  kHandshakeMalformed,       // the first message is not a hello of a version that we speak
  kHandshakeRefused,         // the server said no
  kMemoryNotSealed,          // donated memory that could shrink under the server
  kMemoryKind,               // donated memory that is not a plain memfd
  kPageOutOfRange,           // a page number beyond the donated memory
  kMemoryNotShared,          // memory that the server cannot see
  kPeerGone,                 // the other process closed the connection or died
  kOutOfMemory,
  kOutOfDescriptors,
  kMemorySlotMoved,          // a machine's memory slot is gone or elsewhere while it is in use
  kDriverMissing,            // the guest's kernel has no uio_hv_generic
  kDriverNotBound,           // uio_hv_generic does not have the device
  kDriverRefuses,            // it does not take the device; logged
  kDeviceBusy,               // somebody else has the device open
  kKvmUnsupported,           // KVM lacks a capability that is needed; logged where it was missed
  kSystemCall,               // an unexpected failure of the system; logged where it happened

  // channel and endpoint: KMCL's rules.
  kDisabled,                 // the channel is Disabled
  kNotDisabled,
  kNotConfigured,            // a server channel without interface id or bus handle
  kPacketInFlight,
  kNoBus,                    // no live bus behind the device object
  kWouldBlock,               // does not fit into the ring now
  kCancelled,
  kDeviceRemoved,            // the channel is shutting down
  kBufferTooSmall,
  kSaveMalformed,            // not the bytes of a saved channel or server, or those of another one
  kSaveUnsupported,          // a channel or server that cannot be saved: raw mode, a local bus
  kSaveVersion,              // saved in a version of the format that we do not know
  kCallbackFailed,           // the driver's callback said no; its own status goes along
};

template <typename T>
using Result = std::expected<T, Error>;

// The name of the broken rule, for logs ("kPageOutOfRange" without the k).
const char* ErrorName(Error error);

[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "kmcl: internal error: %s does not hold at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace kmcl

// An invariant of our own code. Never used on anything that a peer wrote.
#define KMCL_CHECK(condition) \
  (static_cast<bool>(condition) ? (void)0 : ::kmcl::CheckFailed(#condition, __FILE__, __LINE__))
