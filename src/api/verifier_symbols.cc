#include "api/verifier_symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "api/verifier_lines.h"
#include "mutex.h"

namespace kmcl::api::verifier {
namespace {

struct Function {
  std::uintptr_t begin = 0;
  std::uintptr_t bytes = 0;
  const char* name = nullptr;
};

// One mapped file. Stays mapped a second time, whole, once a report has needed it.
struct Module {
  std::string path;
  std::span<const std::byte> bytes;
  std::vector<Function> functions;  // by address
  LineTables lines;
};

// The value at `offset`, if the file goes that far.
template <typename T>
const T* At(std::span<const std::byte> bytes, std::uint64_t offset, std::uint64_t count = 1) {
  if (offset > bytes.size() || count > (bytes.size() - offset) / sizeof(T)) return nullptr;
  return reinterpret_cast<const T*>(bytes.data() + offset);
}

std::span<const std::byte> MapFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  struct stat status {};
  void* memory = MAP_FAILED;
  if (fstat(file, &status) == 0 && status.st_size > 0) {
    memory =
        mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
  }
  close(file);
  if (memory == MAP_FAILED) return {};
  return {static_cast<const std::byte*>(memory), static_cast<std::size_t>(status.st_size)};
}

std::span<const std::byte> SectionBytes(std::span<const std::byte> file,
                                        const Elf64_Shdr& section) {
  if (section.sh_type == SHT_NOBITS || (section.sh_flags & SHF_COMPRESSED) != 0) return {};
  const auto* const begin = At<std::byte>(file, section.sh_offset, section.sh_size);
  return begin == nullptr ? std::span<const std::byte>()
                          : std::span(begin, static_cast<std::size_t>(section.sh_size));
}

// Strings that are followed to their end must end inside of the file.
bool IsStringTable(std::span<const std::byte> bytes) {
  return !bytes.empty() && bytes.back() == std::byte{0};
}

void ReadFunctions(Module& module, std::span<const Elf64_Shdr> sections, Elf64_Word type) {
  for (const Elf64_Shdr& section : sections) {
    if (section.sh_type != type || section.sh_link >= sections.size()) continue;
    const auto table = SectionBytes(module.bytes, section);
    const auto names = SectionBytes(module.bytes, sections[section.sh_link]);
    if (!IsStringTable(names)) continue;
    const auto* const symbols = reinterpret_cast<const Elf64_Sym*>(table.data());
    for (std::size_t i = 0; i < table.size() / sizeof(Elf64_Sym); ++i) {
      const Elf64_Sym& symbol = symbols[i];
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_value == 0 ||
          symbol.st_name >= names.size()) {
        continue;
      }
      module.functions.push_back(
          {.begin = symbol.st_value,
           .bytes = symbol.st_size,
           .name = reinterpret_cast<const char*>(names.data()) + symbol.st_name});
    }
  }
}

void Load(Module& module) {
  module.bytes = MapFile(module.path);
  const auto* const header = At<Elf64_Ehdr>(module.bytes, 0);
  if (header == nullptr || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
      header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_shentsize != sizeof(Elf64_Shdr)) {
    return;
  }
  const auto* const first = At<Elf64_Shdr>(module.bytes, header->e_shoff, header->e_shnum);
  if (first == nullptr || header->e_shstrndx >= header->e_shnum) return;
  const std::span<const Elf64_Shdr> sections(first, header->e_shnum);
  ReadFunctions(module, sections, SHT_SYMTAB);
  if (module.functions.empty()) ReadFunctions(module, sections, SHT_DYNSYM);
  std::sort(module.functions.begin(), module.functions.end(),
            [](const Function& a, const Function& b) {
              return std::tie(a.begin, a.name) < std::tie(b.begin, b.name);
            });

  const auto names = SectionBytes(module.bytes, sections[header->e_shstrndx]);
  if (!IsStringTable(names)) return;
  DebugSections debug;
  for (const Elf64_Shdr& section : sections) {
    if (section.sh_name >= names.size()) continue;
    const std::string_view name(reinterpret_cast<const char*>(names.data()) + section.sh_name);
    if (name == ".debug_line") debug.line = SectionBytes(module.bytes, section);
    if (name == ".debug_line_str") debug.line_strings = SectionBytes(module.bytes, section);
    if (name == ".debug_str") debug.strings = SectionBytes(module.bytes, section);
  }
  module.lines = LineTables(debug);
}

// What is mapped at an address.
struct Mapped {
  std::uintptr_t address = 0;
  std::string path;
  std::uintptr_t base = 0;
};

int FindMapped(dl_phdr_info* info, std::size_t, void* context) {
  auto& wanted = *static_cast<Mapped*>(context);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    const std::uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type != PT_LOAD || wanted.address < begin ||
        wanted.address - begin >= segment.p_memsz) {
      continue;
    }
    wanted.base = info->dlpi_addr;
    // The program itself has no name here.
    wanted.path = info->dlpi_name[0] == '\0' ? "/proc/self/exe" : info->dlpi_name;
    return 1;
  }
  return 0;
}

// Without the types of the parameters, which make a line unreadable.
std::string WithoutParameters(std::string name) {
  const std::size_t end = name.rfind(')');
  int depth = 0;
  for (std::size_t i = end; end != name.npos; --i) {
    if (name[i] == ')') ++depth;
    if (name[i] == '(' && --depth == 0) {
      if (i != 0 && name.compare(i, 2, "(a") != 0) name.resize(i);  // (anonymous namespace)
      break;
    }
    if (i == 0) break;
  }
  return name;
}

std::string Demangle(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> readable(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), &std::free);
  return status == 0 && readable != nullptr ? WithoutParameters(readable.get()) : name;
}

const Function* FindFunction(const Module& module, std::uintptr_t address) {
  auto found = std::upper_bound(
      module.functions.begin(), module.functions.end(), address,
      [](std::uintptr_t value, const Function& function) { return value < function.begin; });
  while (found != module.functions.begin()) {
    --found;
    if (address - found->begin < found->bytes) return &*found;
    if (address - found->begin > (1u << 20)) break;
  }
  return nullptr;
}

std::string LastPart(std::string_view path) {
  return std::string(path.substr(path.rfind('/') + 1));
}

std::string ProgramName() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  return length <= 0 ? "program" : LastPart({path, static_cast<std::size_t>(length)});
}

struct Modules {
  Mutex mutex;
  std::map<std::string, Module> loaded KMCL_GUARDED_BY(mutex);
};

// Never destroyed: a report may come while the process exits.
Modules& AllModules() {
  static auto* const modules = new Modules;
  return *modules;
}

}  // namespace

Symbol Resolve(const void* address) {
  Symbol symbol;
  Mapped mapped{.address = reinterpret_cast<std::uintptr_t>(address)};
  if (dl_iterate_phdr(&FindMapped, &mapped) == 0) return symbol;
  symbol.in_module = mapped.address - mapped.base;
  symbol.module = mapped.path == "/proc/self/exe" ? ProgramName() : LastPart(mapped.path);

  Modules& modules = AllModules();
  MutexLock lock(modules.mutex);
  auto [entry, is_new] = modules.loaded.try_emplace(mapped.path);
  Module& module = entry->second;
  if (is_new) {
    module.path = mapped.path;
    Load(module);
  }
  if (const Function* const function = FindFunction(module, symbol.in_module)) {
    symbol.function = Demangle(function->name);
    symbol.offset = symbol.in_module - function->begin;
  }
  if (const auto place = module.lines.Find(symbol.in_module)) {
    symbol.file = LastPart(place->file);
    symbol.line = place->line;
  }
  return symbol;
}

std::string Describe(const void* address) {
  const Symbol symbol = Resolve(address);
  char text[64];
  if (symbol.module.empty()) {
    std::snprintf(text, sizeof text, "%p", address);
    return text;
  }
  std::snprintf(
      text, sizeof text, "+0x%zx",
      static_cast<std::size_t>(symbol.function.empty() ? symbol.in_module : symbol.offset));
  std::string described = (symbol.function.empty() ? symbol.module : symbol.function) + text;
  if (!symbol.file.empty()) {
    described += " (" + symbol.file + ":" + std::to_string(symbol.line) + ")";
  }
  return described;
}

}  // namespace kmcl::api::verifier
