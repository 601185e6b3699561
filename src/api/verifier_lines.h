// File and line of a code address, from the DWARF line tables (versions 2 to 5) of one program or
// library. What the tables say in a way that is not understood here is left out; nothing is trusted
// to be whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kmcl::api::verifier {

struct DebugSections {
  std::span<const std::byte> line;          // .debug_line
  std::span<const std::byte> line_strings;  // .debug_line_str
  std::span<const std::byte> strings;       // .debug_str
};

class LineTables {
 public:
  LineTables() = default;
  explicit LineTables(const DebugSections& sections);

  struct Place {
    std::string file;
    unsigned line = 0;
  };
  // `address` as in the file, before it was moved to where it is mapped.
  std::optional<Place> Find(std::uintptr_t address) const;

 private:
  struct Row {
    std::uintptr_t address = 0;
    std::uint32_t file = 0;  // in files_
    std::uint32_t line = 0;  // 0: the end of a sequence
    std::size_t order = 0;   // among those of its address, as they were read
  };
  friend class LineProgram;

  std::vector<std::string> files_;
  std::vector<Row> rows_;  // by address
};

}  // namespace kmcl::api::verifier
