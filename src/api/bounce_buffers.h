// Buffers that a driver's channel has set aside in memory that its server sees.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace kmcl::api {

class BounceBuffers {
 public:
  // `count` buffers of `bytes`, each in whole pages of its own; nullptr without memory.
  static std::unique_ptr<BounceBuffers> Create(std::uint32_t bytes, std::uint32_t count);
  ~BounceBuffers();
  BounceBuffers(const BounceBuffers&) = delete;
  BounceBuffers& operator=(const BounceBuffers&) = delete;

  // The next one, zeroed; nullptr when all were taken. Any thread.
  void* Take();

 private:
  BounceBuffers(std::byte* memory, std::size_t stride, std::uint32_t count)
      : memory_(memory), stride_(stride), count_(count) {}

  std::byte* const memory_;
  const std::size_t stride_;
  const std::uint32_t count_;
  std::atomic<std::uint32_t> taken_{0};
};

}  // namespace kmcl::api
