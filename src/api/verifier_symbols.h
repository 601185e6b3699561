// Names of code addresses of this process: function and offset, file and line, as far as the symbol
// tables of the program and its libraries tell. Reads the files that are mapped; runs no other
// program.
#pragma once

#include <cstdint>
#include <string>

namespace kmcl::api::verifier {

struct Symbol {
  std::string function;  // demangled; empty: unknown
  std::uintptr_t offset = 0;
  std::string file;  // empty: unknown
  unsigned line = 0;
  std::string module;  // the file that is mapped there
  std::uintptr_t in_module = 0;
};

// Slow: for reports. Any thread.
Symbol Resolve(const void* address);

// "OnPacket+0x1c (driver.c:42)", or "program+0x1234" without a symbol.
std::string Describe(const void* address);

}  // namespace kmcl::api::verifier
