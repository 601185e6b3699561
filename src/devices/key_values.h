// The key/value service (KVP): pairs of text that host and guest leave for each other in pools, and
// the addresses of the guest's network adapters (VMBus device reference 1.6).
//
// The guest answers from a daemon in its user space; without one it does not even negotiate, which
// is no error and has no limit. Versions 3.0 and 4.0 are offered: 5.0 has another form of
// addresses, and every guest that speaks it speaks 4.0.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/integration_channel.h"

namespace kmcl::devices {

inline constexpr GUID kKeyValueInterface = {
    0xa9a0f4e7, 0x5a45, 0x4d96, {0xb8, 0x27, 0x8a, 0x84, 0x1e, 0x8c, 0x03, 0xe6}};
inline constexpr GUID kKeyValueInstance = {
    0x242ff919, 0x07db, 0x4180, {0x9c, 0x2e, 0xb8, 0x6c, 0xb6, 0x8c, 0x8c, 0x55}};

enum class KeyValuePool : std::uint8_t {
  kExternal = 0,   // the host writes
  kGuest = 1,      // the guest writes
  kAutomatic = 2,  // facts about the guest: its name, system and addresses
  kHost = 3,       // facts about the host
};

struct KeyValue {
  std::string key;
  std::string value;  // numbers are written out
};

// UTF-16 units, the NUL not counted.
inline constexpr std::size_t kMostKeyUnits = 255;
inline constexpr std::size_t kMostValueUnits = 1023;
// How many pairs of a pool are fetched at most: a guest could go on for ever.
inline constexpr std::uint32_t kMostKeyValues = 1024;

struct AdapterAddresses {
  std::uint8_t family = 0;  // 0 none, 1 IPv4, 2 IPv6, 3 both
  bool dhcp = false;
  std::vector<std::string> addresses;
  std::vector<std::string> subnets;
  std::vector<std::string> gateways;
  std::vector<std::string> dns_servers;
};

// Made and destroyed by whoever owns the partition's devices, on a thread that may block. Its
// functions may be called on any thread and block for the guest's answer, at most `timeout` for
// each request; Linux' own limit is 30 s. Text is UTF-8. What a guest sent is text to show and
// nothing else.
class KeyValueDevice {
 public:
  using Report = IntegrationChannel::Report;
  static constexpr std::chrono::milliseconds kTimeout{35'000};

  // Offers the device to `partition`. May be called from PartitionArrived. `report` may be empty.
  static std::expected<std::unique_ptr<KeyValueDevice>, NTSTATUS> Offer(
      PDEVICE_OBJECT device_object, HANDLE partition, Report report);
  // No thread is in the functions below, unless Stop was called.
  ~KeyValueDevice() = default;

  template <typename T>
  using Result = std::expected<T, IntegrationFailure>;

  // Linux refuses with "there is no such item" a key that it does not have, and a pair that it
  // cannot store. A key or value that is too long is kMalformed, and not sent.
  Result<std::string> Get(KeyValuePool pool, std::string_view key,
                          std::chrono::milliseconds timeout = kTimeout);
  Result<void> Set(KeyValuePool pool, std::string_view key, std::string_view value,
                   std::chrono::milliseconds timeout = kTimeout);
  Result<void> Delete(KeyValuePool pool, std::string_view key,
                      std::chrono::milliseconds timeout = kTimeout);
  Result<std::vector<KeyValue>> Enumerate(KeyValuePool pool,
                                          std::chrono::milliseconds timeout = kTimeout);
  // Of the adapter with this hardware address, "00:15:5D:00:11:22".
  Result<AdapterAddresses> Addresses(std::string_view hardware_address,
                                     std::chrono::milliseconds timeout = kTimeout);

  IntegrationStatus Status() const { return channel_->Status(); }
  // Lets every waiting call return, for good.
  void Stop() { channel_->Stop(); }
  // Revokes the offer and waits until the channel is torn down. The counts are final.
  KMCL_CHANNEL_COUNTERS Revoke() { return channel_->Revoke(); }

 private:
  KeyValueDevice() = default;
  // The answer's body: of the operation and pool that `body` asks for, successful, and as long.
  Result<std::vector<std::byte>> Ask(std::uint64_t agreement, std::vector<std::byte> body,
                                     std::chrono::milliseconds timeout);

  std::unique_ptr<IntegrationChannel> channel_;
};

}  // namespace kmcl::devices
