#include "driver_buffers.h"

#include <kmcl/wdk.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace kmcl::contract {

namespace {

constexpr ULONG kTag = 0x6C6D634B;

UINT32 Number(const std::vector<std::string>& words, std::size_t index) {
  return static_cast<UINT32>(std::stoul(words.at(index)));
}

std::string Created(NTSTATUS status, UINT32 handle) {
  return std::to_string(status) + " " + std::to_string(handle);
}

}  // namespace

DriverBuffers::~DriverBuffers() {
  for (const auto& [handle, chain] : chains_) {
    for (PMDL const mdl : chain.mdls) IoFreeMdl(mdl);
  }
  for (const auto& [id, buffer] : buffers_) {
    if (buffer.pooled) {
      ExFreePoolWithTag(buffer.base, kTag);
    } else {
      std::free(buffer.base);
    }
  }
}

std::string DriverBuffers::Do(VMBCHANNEL channel, const std::vector<std::string>& words) {
  const std::string& verb = words.at(0);
  if (verb == "make") return Make(words);
  if (verb == "chain") return CreateChain(channel, words);
  if (verb == "pages" || verb == "fragments") return CreatePages(channel, words);
  if (verb == "map") return Map(channel, words);
  if (verb == "free") {
    const Buffer buffer = Find(words.at(1));
    const std::lock_guard lock(mutex_);
    buffers_.erase(std::stoi(words[1]));
    ExFreePoolWithTag(buffer.base, kTag);
    return "ok";
  }
  if (verb == "fill") {
    std::memset(Find(words.at(1)).base + Number(words, 2), static_cast<int>(Number(words, 4)),
                Number(words, 3));
    return "ok";
  }
  if (verb == "holds") {
    const unsigned char* const from = Find(words.at(1)).base + Number(words, 2);
    const auto wanted = static_cast<unsigned char>(Number(words, 4));
    return std::all_of(from, from + Number(words, 3),
                       [wanted](unsigned char byte) { return byte == wanted; })
               ? "yes"
               : "no";
  }
  if (verb == "create") {
    std::size_t bytes = 0;
    unsigned char* const base = At(words.at(2), &bytes);
    UINT32 handle = 77;
    const NTSTATUS status = VmbChannelCreateGpadlFromBuffer(channel, Number(words, 1), base,
                                                            static_cast<UINT32>(bytes), &handle);
    return Created(status, handle);
  }
  if (verb == "delete") {
    VmbChannelDeleteGpadl(channel, Number(words, 1));
    return "ok";
  }
  if (verb == "unmap") {
    {
      const std::lock_guard lock(mutex_);
      mapped_.erase(Number(words, 1));
    }
    VmbChannelUnmapGpadl(channel, Number(words, 1));
    return "ok";
  }
  const UINT32 handle = Number(words, 1);
  const auto value = static_cast<unsigned char>(Number(words, 4));
  if (verb == "write") {
    return ForEach(handle, Number(words, 2), Number(words, 3),
                   [value](unsigned char* at, std::size_t bytes) { std::memset(at, value, bytes); })
               ? "ok"
               : "unmapped";
  }
  if (verb == "read") {
    bool good = true;
    const bool mapped = ForEach(
        handle, Number(words, 2), Number(words, 3),
        [&good, value](const unsigned char* at, std::size_t bytes) {
          good = good && std::all_of(at, at + bytes, [value](auto byte) { return byte == value; });
        });
    return mapped && good ? "yes" : "no";
  }
  return "unknown memory " + verb;
}

DriverBuffers::Buffer DriverBuffers::Find(const std::string& id) {
  const std::lock_guard lock(mutex_);
  return buffers_.at(std::stoi(id));
}

unsigned char* DriverBuffers::At(const std::string& part, std::size_t* bytes) {
  const std::size_t first = part.find(':');
  const std::size_t second = part.find(':', first + 1);
  *bytes = std::stoul(part.substr(second + 1));
  return Find(part.substr(0, first)).base + std::stoul(part.substr(first + 1, second - first - 1));
}

std::string DriverBuffers::Make(const std::vector<std::string>& words) {
  Buffer buffer{.base = nullptr, .bytes = Number(words, 2), .pooled = words.at(1) == "pool"};
  if (buffer.pooled) {
    buffer.base = static_cast<unsigned char*>(
        ExAllocatePool2(POOL_FLAG_NON_PAGED | POOL_FLAG_UNINITIALIZED, buffer.bytes, kTag));
  } else {
    buffer.base = static_cast<unsigned char*>(std::malloc(buffer.bytes));
  }
  if (buffer.base == nullptr) return "none";
  const std::lock_guard lock(mutex_);
  buffers_[next_] = buffer;
  return std::to_string(next_++);
}

std::string DriverBuffers::CreateChain(VMBCHANNEL channel, const std::vector<std::string>& words) {
  Chain chain;
  for (std::size_t index = 4; index < words.size(); ++index) {
    std::size_t bytes = 0;
    unsigned char* const base = At(words[index], &bytes);
    PMDL const mdl = IoAllocateMdl(base, static_cast<ULONG>(bytes), FALSE, FALSE, nullptr);
    MmBuildMdlForNonPagedPool(mdl);
    if (!chain.mdls.empty()) chain.mdls.back()->Next = mdl;
    chain.mdls.push_back(mdl);
  }
  UINT32 handle = 77;
  const NTSTATUS status = VmbChannelCreateGpadlFromMdl(
      channel, Number(words, 1), chain.mdls.front(), Number(words, 2), Number(words, 3), &handle);
  if (NT_SUCCESS(status)) {
    const std::lock_guard lock(mutex_);
    chains_[handle] = std::move(chain);
  } else {
    for (PMDL const mdl : chain.mdls) IoFreeMdl(mdl);
  }
  return Created(status, handle);
}

std::string DriverBuffers::CreatePages(VMBCHANNEL channel, const std::vector<std::string>& words) {
  std::vector<PFN_NUMBER> pages;
  UINT32 offset = 0;
  UINT32 bytes = 0;
  if (words.at(0) == "pages") {
    offset = Number(words, 2);
    bytes = Number(words, 3);
    const auto first = reinterpret_cast<ULONG_PTR>(Find(words.at(4)).base) >> PAGE_SHIFT;
    for (std::size_t index = 5; index < words.size(); ++index) {
      pages.push_back(first + std::stoul(words[index]));
    }
  } else {
    const Buffer buffer = Find(words.at(2));
    const auto first = reinterpret_cast<ULONG_PTR>(buffer.base) >> PAGE_SHIFT;
    const std::size_t run = Number(words, 3);
    for (std::size_t end = buffer.bytes / PAGE_SIZE; end != 0; end -= std::min(run, end)) {
      for (std::size_t page = end - std::min(run, end); page < end; ++page) {
        pages.push_back(first + page);
      }
    }
  }
  UINT32 handle = 77;
  const NTSTATUS status =
      VmbChannelCreateGpadlFromPfnList(channel, Number(words, 1), pages.data(),
                                       static_cast<UINT32>(pages.size()), offset, bytes, &handle);
  return Created(status, handle);
}

std::string DriverBuffers::Map(VMBCHANNEL channel, const std::vector<std::string>& words) {
  PMDL chain = reinterpret_cast<PMDL>(this);
  const NTSTATUS status = VmbChannelMapGpadl(channel, Number(words, 1), Number(words, 2), &chain);
  std::size_t mdls = 0;
  std::size_t bytes = 0;
  if (NT_SUCCESS(status)) {
    for (const MDL* mdl = chain; mdl != nullptr; mdl = mdl->Next) {
      ++mdls;
      bytes += MmGetMdlByteCount(mdl);
    }
    const std::lock_guard lock(mutex_);
    mapped_[Number(words, 2)] = chain;
  } else if (chain != nullptr) {
    return "a failure left a chain";
  }
  return std::to_string(status) + " " + std::to_string(mdls) + " " + std::to_string(bytes);
}

template <typename Each>
bool DriverBuffers::ForEach(UINT32 handle, std::size_t offset, std::size_t bytes,
                            const Each& each) {
  PMDL mdl = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto found = mapped_.find(handle);
    if (found == mapped_.end()) return false;
    mdl = found->second;
  }
  for (; mdl != nullptr && bytes != 0; mdl = mdl->Next) {
    const std::size_t here = MmGetMdlByteCount(mdl);
    if (offset >= here) {
      offset -= here;
      continue;
    }
    auto* const base =
        static_cast<unsigned char*>(MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority));
    if (base == nullptr) return false;
    const std::size_t count = std::min(bytes, here - offset);
    each(base + offset, count);
    bytes -= count;
    offset = 0;
  }
  return bytes == 0;
}

}  // namespace kmcl::contract
