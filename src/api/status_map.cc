#include "api/status_map.h"

namespace kmcl::api {

NTSTATUS StatusOf(Error error) {
  switch (error) {
    case Error::kProcessorUnusable:
      return STATUS_INVALID_PARAMETER_2;
    case Error::kPacketTooLong:
      return STATUS_INVALID_PARAMETER_3;
    case Error::kNotConnected:
    case Error::kHandshakeRefused:
    case Error::kPeerGone:
      return STATUS_CONNECTION_DISCONNECTED;
    case Error::kAlreadyConnected:
    case Error::kChannelState:
    case Error::kGpadlState:
    case Error::kRequestPending:
    case Error::kDisabled:
    case Error::kNotDisabled:
    case Error::kNotConfigured:
    case Error::kPacketInFlight:
      return STATUS_INVALID_DEVICE_STATE;
    case Error::kChannelUnknown:
    case Error::kOfferWithoutPrimary:
    case Error::kGpadlUnknown:
      return STATUS_NOT_FOUND;
    case Error::kChannelIdsExhausted:
    case Error::kGpadlTooLarge:
    case Error::kLimitExceeded:
    case Error::kOutOfMemory:
    case Error::kOutOfDescriptors:
      return STATUS_INSUFFICIENT_RESOURCES;
    case Error::kOfferDuplicate:
    case Error::kAddressInUse:
      return STATUS_OBJECT_NAME_COLLISION;
    case Error::kSaveUnsupported:
      return STATUS_NOT_SUPPORTED;
    case Error::kVersionRefused:
    case Error::kSaveVersion:
      return STATUS_REVISION_MISMATCH;
    case Error::kAddressMalformed:
      return STATUS_INVALID_PARAMETER_1;
    case Error::kAddressUnreachable:
      return STATUS_OBJECT_NAME_NOT_FOUND;
    case Error::kPermissionDenied:
    case Error::kGpadlReadOnly:
      return STATUS_ACCESS_DENIED;
    case Error::kSystemCall:
    case Error::kCallbackFailed:
      return STATUS_UNSUCCESSFUL;
    case Error::kDriverNotBound:
      return STATUS_DEVICE_NOT_READY;
    case Error::kDeviceBusy:
      return STATUS_DEVICE_BUSY;
    case Error::kDriverMissing:
    case Error::kDriverRefuses:
    case Error::kMemoryNotShared:
    case Error::kMemorySlotMoved:
    case Error::kKvmUnsupported:
      return STATUS_NOT_SUPPORTED;
    case Error::kNoBus:
      return STATUS_NO_SUCH_DEVICE;
    case Error::kWouldBlock:
      return STATUS_BUFFER_OVERFLOW;
    case Error::kCancelled:
      return STATUS_CANCELLED;
    case Error::kDeviceRemoved:
      return STATUS_DEVICE_REMOVED;
    case Error::kBufferTooSmall:
      return STATUS_BUFFER_TOO_SMALL;
    // The peer's bytes were not what the protocol allows.
    case Error::kMessageTooShort:
    case Error::kMessageTooLong:
    case Error::kMessageUnknown:
    case Error::kMessageWrongDirection:
    case Error::kMessageNotInVersion:
    case Error::kFieldOutOfRange:
    case Error::kVersionUnknown:
    case Error::kPacketTypeUnknown:
    case Error::kPacketFlagsUnknown:
    case Error::kPacketOffsetOutOfRange:
    case Error::kPacketLengthOutOfRange:
    case Error::kPacketHeaderTooShort:
    case Error::kGpaRangeMalformed:
    case Error::kPipeHeaderMalformed:
    case Error::kRingIndexOutOfRange:
    case Error::kRingGeometry:
    case Error::kGpadlDuplicate:
    case Error::kPaused:
    case Error::kNotPaused:
    case Error::kAnswerUnexpected:
    case Error::kHandshakeMalformed:
    case Error::kMemoryNotSealed:
    case Error::kMemoryKind:
    case Error::kPageOutOfRange:
    case Error::kSaveMalformed:
      return STATUS_DATA_ERROR;
  }
  return STATUS_UNSUCCESSFUL;
}

NTSTATUS StatusOf(channel::Outcome outcome) {
  switch (outcome) {
    case channel::Outcome::kSuccess:
      return STATUS_SUCCESS;
    case channel::Outcome::kRemoved:
      return STATUS_DEVICE_REMOVED;
    case channel::Outcome::kCancelled:
      return STATUS_CANCELLED;
  }
  return STATUS_UNSUCCESSFUL;
}

}  // namespace kmcl::api
