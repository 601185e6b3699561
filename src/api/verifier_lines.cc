#include "api/verifier_lines.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>
#include <utility>

namespace kmcl::api::verifier {
namespace {

// Numbers of the DWARF standard, sections 6.2 and 7.5.
enum : std::uint64_t {
  kContentPath = 1,
  kFormBlock2 = 0x03,
  kFormBlock4 = 0x04,
  kFormData2 = 0x05,
  kFormData4 = 0x06,
  kFormData8 = 0x07,
  kFormString = 0x08,
  kFormBlock = 0x09,
  kFormBlock1 = 0x0a,
  kFormData1 = 0x0b,
  kFormStrp = 0x0e,
  kFormUdata = 0x0f,
  kFormData16 = 0x1e,
  kFormLineStrp = 0x1f,
};

// Reads from a piece of a section. Beyond the end it gives zeroes, and says so afterwards.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }
  bool empty() const { return bytes_.empty() || !ok_; }

  std::span<const std::byte> Bytes(std::uint64_t count) {
    if (count > bytes_.size()) {
      ok_ = false;
      bytes_ = {};
      return {};
    }
    const auto taken = bytes_.first(static_cast<std::size_t>(count));
    bytes_ = bytes_.subspan(static_cast<std::size_t>(count));
    return taken;
  }
  template <typename T>
  T Number() {
    T value{};
    const auto taken = Bytes(sizeof value);
    if (taken.size() == sizeof value) std::memcpy(&value, taken.data(), sizeof value);
    return value;
  }
  std::uint64_t Offset(bool is_64) {
    return is_64 ? Number<std::uint64_t>() : Number<std::uint32_t>();
  }
  std::uint64_t Uleb() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; ok_; shift += 7) {
      const auto byte = Number<std::uint8_t>();
      if (shift < 64) value |= std::uint64_t{byte & 0x7Fu} << shift;
      if ((byte & 0x80) == 0) break;
    }
    return value;
  }
  std::int64_t Sleb() {
    std::uint64_t value = 0;
    unsigned shift = 0;
    std::uint8_t byte = 0;
    do {
      byte = Number<std::uint8_t>();
      if (shift < 64) value |= std::uint64_t{byte & 0x7Fu} << shift;
      shift += 7;
    } while (ok_ && (byte & 0x80) != 0);
    if (shift < 64 && (byte & 0x40) != 0) value |= ~std::uint64_t{0} << shift;
    return static_cast<std::int64_t>(value);
  }
  std::string String() {
    std::string text;
    while (!empty()) {
      const char letter = Number<char>();
      if (letter == '\0') break;
      text += letter;
    }
    return text;
  }

 private:
  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

std::string StringAt(std::span<const std::byte> table, std::uint64_t offset) {
  if (offset >= table.size()) return {};
  return Reader(table.subspan(static_cast<std::size_t>(offset))).String();
}

}  // namespace

// The program of one compilation unit: its header, then the machine of DWARF 6.2.2.
class LineProgram {
 public:
  LineProgram(const DebugSections& sections, Reader unit, bool is_64, LineTables& into)
      : sections_(sections), unit_(unit), is_64_(is_64), into_(into) {}

  void Run() {
    if (!ReadHeader()) return;
    while (!unit_.empty()) Step();
  }

 private:
  bool ReadHeader() {
    version_ = unit_.Number<std::uint16_t>();
    if (version_ < 2 || version_ > 5) return false;
    if (version_ >= 5) {
      if (unit_.Number<std::uint8_t>() != sizeof(std::uintptr_t)) return false;
      unit_.Number<std::uint8_t>();  // segment selectors
    }
    Reader tables(unit_.Bytes(unit_.Offset(is_64_)));
    least_instruction_ = tables.Number<std::uint8_t>();
    if (version_ >= 4) tables.Number<std::uint8_t>();  // operations of a VLIW instruction
    tables.Number<std::uint8_t>();                     // is_stmt at first
    const std::uint8_t line_base = tables.Number<std::uint8_t>();
    line_base_ = line_base < 0x80 ? line_base : line_base - 0x100;
    line_range_ = tables.Number<std::uint8_t>();
    opcode_base_ = tables.Number<std::uint8_t>();
    if (line_range_ == 0 || opcode_base_ == 0) return false;
    for (unsigned i = 1; i < opcode_base_; ++i) operands_[i] = tables.Number<std::uint8_t>();
    return version_ >= 5 ? ReadFiles5(tables) : ReadFiles(tables);
  }

  // Versions 2 to 4: the first file has number 1.
  bool ReadFiles(Reader& tables) {
    while (tables.ok() && !tables.String().empty()) {
    }
    numbers_.push_back(Add({}));
    while (tables.ok()) {
      const std::string name = tables.String();
      if (name.empty()) break;
      for (int i = 0; i < 3; ++i) tables.Uleb();
      numbers_.push_back(Add(name));
    }
    return tables.ok();
  }

  bool ReadFiles5(Reader& tables) {
    return ReadEntries(tables, false) && ReadEntries(tables, true);
  }

  bool ReadEntries(Reader& tables, bool are_files) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> formats(tables.Number<std::uint8_t>());
    for (auto& [content, form] : formats) {
      content = tables.Uleb();
      form = tables.Uleb();
    }
    for (std::uint64_t count = tables.Uleb(); count > 0 && tables.ok(); --count) {
      std::string path;
      for (const auto& [content, form] : formats) {
        std::string text;
        if (!ReadForm(tables, form, text)) return false;
        if (content == kContentPath) path = text;
      }
      if (are_files) numbers_.push_back(Add(path));
    }
    return tables.ok();
  }

  bool ReadForm(Reader& tables, std::uint64_t form, std::string& text) {
    switch (form) {
      case kFormString:
        text = tables.String();
        return tables.ok();
      case kFormLineStrp:
        text = StringAt(sections_.line_strings, tables.Offset(is_64_));
        return tables.ok();
      case kFormStrp:
        text = StringAt(sections_.strings, tables.Offset(is_64_));
        return tables.ok();
      case kFormUdata:
        tables.Uleb();
        return tables.ok();
      case kFormData1:
        tables.Bytes(1);
        return tables.ok();
      case kFormData2:
        tables.Bytes(2);
        return tables.ok();
      case kFormData4:
        tables.Bytes(4);
        return tables.ok();
      case kFormData8:
        tables.Bytes(8);
        return tables.ok();
      case kFormData16:
        tables.Bytes(16);
        return tables.ok();
      case kFormBlock:
        tables.Bytes(tables.Uleb());
        return tables.ok();
      case kFormBlock1:
        tables.Bytes(tables.Number<std::uint8_t>());
        return tables.ok();
      case kFormBlock2:
        tables.Bytes(tables.Number<std::uint16_t>());
        return tables.ok();
      case kFormBlock4:
        tables.Bytes(tables.Number<std::uint32_t>());
        return tables.ok();
      default:
        return false;
    }
  }

  std::uint32_t Add(const std::string& file) {
    into_.files_.push_back(file);
    return static_cast<std::uint32_t>(into_.files_.size() - 1);
  }

  void Step() {
    const auto opcode = unit_.Number<std::uint8_t>();
    if (opcode >= opcode_base_) {
      const unsigned adjusted = opcode - opcode_base_;
      Advance(adjusted / line_range_);
      line_ += line_base_ + static_cast<int>(adjusted % line_range_);
      Emit();
      return;
    }
    switch (opcode) {
      case 0:
        Extended();
        return;
      case 1:  // copy
        Emit();
        return;
      case 2:  // advance_pc
        Advance(unit_.Uleb());
        return;
      case 3:  // advance_line
        line_ += unit_.Sleb();
        return;
      case 4:  // set_file
        file_ = unit_.Uleb();
        return;
      case 8:  // const_add_pc
        Advance((255u - opcode_base_) / line_range_);
        return;
      case 9:  // fixed_advance_pc
        address_ += unit_.Number<std::uint16_t>();
        return;
      default:
        for (unsigned i = 0; i < operands_[opcode]; ++i) unit_.Uleb();
        return;
    }
  }

  void Extended() {
    Reader operation(unit_.Bytes(unit_.Uleb()));
    switch (operation.Number<std::uint8_t>()) {
      case 1:  // end_sequence
        // What the linker threw away begins at address 0.
        if (!sequence_.empty() && sequence_.front().address != 0) {
          sequence_.push_back({.address = address_, .file = 0, .line = 0});
          for (LineTables::Row& row : sequence_) {
            row.order = into_.rows_.size();
            into_.rows_.push_back(row);
          }
        }
        sequence_.clear();
        address_ = 0;
        file_ = 1;
        line_ = 1;
        return;
      case 2:  // set_address
        address_ = operation.Number<std::uintptr_t>();
        return;
      default:
        return;
    }
  }

  void Advance(std::uint64_t instructions) { address_ += instructions * least_instruction_; }

  void Emit() {
    const bool known = file_ < numbers_.size() && line_ > 0;
    sequence_.push_back({.address = address_,
                         .file = known ? numbers_[static_cast<std::size_t>(file_)] : 0,
                         .line = known ? static_cast<std::uint32_t>(line_) : 0});
  }

  const DebugSections& sections_;
  Reader unit_;
  const bool is_64_;
  LineTables& into_;

  std::uint16_t version_ = 0;
  std::uint8_t least_instruction_ = 1;
  int line_base_ = 0;
  std::uint8_t line_range_ = 1;
  std::uint8_t opcode_base_ = 1;
  std::uint8_t operands_[256] = {};
  std::vector<std::uint32_t> numbers_;  // a file's number in this unit: its index in files_

  std::vector<LineTables::Row> sequence_;
  std::uintptr_t address_ = 0;
  std::uint64_t file_ = 1;
  std::int64_t line_ = 1;
};

LineTables::LineTables(const DebugSections& sections) {
  Reader units(sections.line);
  while (!units.empty()) {
    const std::uint32_t length = units.Number<std::uint32_t>();
    const bool is_64 = length == 0xFFFFFFFF;
    const std::uint64_t bytes = is_64 ? units.Number<std::uint64_t>() : length;
    if (!is_64 && length >= 0xFFFFFFF0) break;  // reserved
    LineProgram(sections, Reader(units.Bytes(bytes)), is_64, *this).Run();
  }
  std::sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) {
    return std::tie(a.address, a.order) < std::tie(b.address, b.order);
  });
}

std::optional<LineTables::Place> LineTables::Find(std::uintptr_t address) const {
  auto found =
      std::upper_bound(rows_.begin(), rows_.end(), address,
                       [](std::uintptr_t value, const Row& row) { return value < row.address; });
  // Where one sequence ends and the next begins at the same address, the end may stand behind.
  while (found != rows_.begin()) {
    --found;
    if (found->line != 0 && !files_[found->file].empty()) {
      return Place{.file = files_[found->file], .line = found->line};
    }
    if (found == rows_.begin() || (found - 1)->address != found->address) break;
  }
  return std::nullopt;
}

}  // namespace kmcl::api::verifier
