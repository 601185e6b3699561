// A process with little of something: descriptors, or address space. Until the end of the scope.
#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <vector>

namespace kmcl::kill {

class Allowance {
 public:
  // `more` descriptors beyond those that are open. Places between these are taken meanwhile.
  static Allowance OfDescriptors(std::uint32_t more);
  // `more` bytes beyond what is mapped.
  static Allowance OfMemory(std::uint64_t more);
  ~Allowance();
  Allowance(const Allowance&) = delete;
  Allowance& operator=(const Allowance&) = delete;

  // Any thread, and more than once.
  void Lift() const { setrlimit(resource_, &before_); }

 private:
  Allowance(__rlimit_resource resource, std::uint64_t limit, std::vector<int> taken);

  const __rlimit_resource resource_;
  rlimit before_{};
  std::vector<int> taken_;
};

}  // namespace kmcl::kill
