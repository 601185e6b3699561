// A server inside the fuzzer's process whose devices are made when a guest arrives, and the guest:
// a client of the same bus. Written against the public headers, as the devices are.
#pragma once

#include <kmcl/endpoint.h>

#include <chrono>
#include <functional>
#include <kmcl/kmcl.hpp>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "input.h"

namespace kmcl::fuzz {

// Waits for what another thread does and tells nobody. False: it did not, for so long.
template <typename Condition>
bool Soon(std::chrono::milliseconds limit, Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return true;
}

inline void QuietLog() {
  KmclSetLogSink([](PVOID, KMCL_LOG_LEVEL, const char*) {}, nullptr);
}

class DeviceServer {
 public:
  using Arrived = std::function<void(PDEVICE_OBJECT device_object, HANDLE partition)>;
  DeviceServer(Arrived arrived, std::function<void()> gone)
      : arrived_(std::move(arrived)), gone_(std::move(gone)) {
    static std::uint64_t counter = 0;
    address_ = "local:fuzz-" + std::to_string(++counter);
    KMCL_ENDPOINT_OPTIONS options;
    KmclEndpointOptionsInit(&options);
    options.Context = this;
    options.PartitionArrived = [](PVOID context, KMCL_SERVER server, HANDLE partition) {
      static_cast<DeviceServer*>(context)->arrived_(KmclServerDeviceObject(server), partition);
    };
    options.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE) {
      static_cast<DeviceServer*>(context)->gone_();
    };
    FUZZ_REQUIRE(KmclServerCreate(address_.c_str(), &options, &server_) == STATUS_SUCCESS);
  }
  ~DeviceServer() { KmclServerDestroy(server_); }
  DeviceServer(const DeviceServer&) = delete;
  DeviceServer& operator=(const DeviceServer&) = delete;

  const std::string& address() const { return address_; }
  Client Connect() const {
    ClientOptions options;
    options.address = address_;
    auto client = Client::Connect(options);
    FUZZ_REQUIRE(client.has_value());
    return std::move(*client);
  }

 private:
  const Arrived arrived_;
  const std::function<void()> gone_;
  std::string address_;
  KMCL_SERVER server_ = nullptr;
};

}  // namespace kmcl::fuzz
