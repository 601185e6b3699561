// Every control message as a struct, and the two lists of them: what a client sends and what a
// server sends (VMBus reference 3.2).
//
// A struct is laid out as on the wire, after the 8-byte header, with the longest form's fields
// always present; the assertions beside each one hold it to the reference. Each states
//   kType           its number
//   kSince          the first version that has it
//   kRequires       features that must have been granted (where there are any)
//   kBeforeVersion  that it is legal without a version (where it is)
//   kBytes          its shortest legal size, header included.
// A value of such a type that the codec returned is a private copy of well-formed bytes. Its ids,
// counts and status values are still whatever the peer wrote.
//
// Fields that the agreed version or features lack are zero in a message that was read.
#pragma once

#include <type_traits>
#include <variant>

#include "wire/messages_channel.h"
#include "wire/messages_connection.h"
#include "wire/messages_gpadl.h"

namespace kmcl::wire {

using ClientMessage =
    std::variant<RequestOffers, OpenChannel, CloseChannel, GpadlHeader, GpadlBody, GpadlTeardown,
                 RelIdReleased, InitiateContact, Unload, OpenReservedChannel, CloseReservedChannel,
                 TlConnectRequest, ModifyChannel, ModifyConnection, Pause, Resume>;

using ServerMessage = std::variant<OfferChannel, RescindChannelOffer, AllOffersDelivered,
                                   OpenChannelResult, GpadlCreated, GpadlTorndown, VersionResponse,
                                   UnloadComplete, CloseReservedResponse, TlConnectResult,
                                   ModifyChannelResponse, ModifyConnectionResponse, PauseResponse>;

static_assert(std::variant_size_v<ClientMessage> + std::variant_size_v<ServerMessage> == 29);
static_assert(std::is_trivially_copyable_v<ClientMessage>);
static_assert(std::is_trivially_copyable_v<ServerMessage>);

}  // namespace kmcl::wire
