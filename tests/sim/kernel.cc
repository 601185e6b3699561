#include "kernel.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <utility>

#include "faults.h"
#include "scheduler.h"

namespace kmcl::sim {
namespace {

struct Descriptor {
  FilePointer file;
  std::uint32_t process = 0;
};
struct Name {
  std::weak_ptr<SocketFile> socket;
  std::uint64_t number = 0;
};
struct Range {
  std::uintptr_t end;
  std::uint32_t process;
};
struct Kernel {
  std::vector<Descriptor> descriptors;
  std::map<std::string, Name> names;
  std::uint64_t next_number = 1;
  std::map<std::uintptr_t, Range> ranges;
};
// Never destroyed: threads may be left.
Kernel& TheKernel() {
  static Kernel* const kernel = new Kernel;
  return *kernel;
}

// Messages that a socket holds before its writer has to wait.
constexpr std::size_t kMostMessages = 250;

}  // namespace

// ---- Files.

void File::Notify() {
  TellEpolls();
  Changed();
}
void File::TellEpolls() {
  for (EpollFile* const each : epolls_) each->OnNotify(*this);
}
void File::Leave() {
  for (EpollFile* const each : epolls_) each->Forget(*this);
  epolls_.clear();
}

std::uint32_t EventFile::Readiness() { return EPOLLOUT | (count_ != 0 ? EPOLLIN : 0u); }
void EventFile::Add(std::uint64_t count) {
  count_ += count;
  Notify();
}
std::uint64_t EventFile::Take() { return std::exchange(count_, 0); }

EpollFile::~EpollFile() {
  for (const Watch& watch : watches_) {
    if (watch.file != nullptr) std::erase(watch.file->epolls_, this);
  }
}

int EpollFile::Add(int fd, const FilePointer& file, std::uint32_t events, std::uint64_t data) {
  std::erase_if(watches_, [](const Watch& watch) { return watch.file == nullptr; });
  for (const Watch& watch : watches_) {
    if (watch.fd == fd && watch.file == file.get()) return EEXIST;
  }
  watches_.push_back({.fd = fd, .file = file.get(), .events = events, .data = data, .edge = true});
  if (std::ranges::find(file->epolls_, this) == file->epolls_.end()) file->epolls_.push_back(this);
  if (ReadinessOf(watches_.back()) != 0) Notify();
  return 0;
}

int EpollFile::Modify(int fd, std::uint32_t events, std::uint64_t data) {
  for (Watch& watch : watches_) {
    if (watch.fd != fd || watch.file == nullptr) continue;
    watch.events = events;
    watch.data = data;
    watch.edge = true;
    if (ReadinessOf(watch) != 0) Notify();
    return 0;
  }
  return ENOENT;
}

int EpollFile::Remove(int fd, File& file) {
  const auto removed = std::erase_if(
      watches_, [&](const Watch& watch) { return watch.fd == fd && watch.file == &file; });
  const bool still =
      std::ranges::any_of(watches_, [&](const Watch& watch) { return watch.file == &file; });
  if (!still) std::erase(file.epolls_, this);
  return removed != 0 ? 0 : ENOENT;
}

void EpollFile::Forget(const File& file) {
  for (Watch& watch : watches_) {
    if (watch.file == &file) watch.file = nullptr;
  }
}

std::uint32_t EpollFile::ReadinessOf(const Watch& watch) const {
  if (watch.file == nullptr) return 0;
  if ((watch.events & EPOLLET) != 0 && !watch.edge) return 0;
  return watch.file->Readiness() & (watch.events | EPOLLHUP | EPOLLERR);
}

std::uint32_t EpollFile::Readiness() {
  const bool ready = std::any_of(watches_.begin(), watches_.end(),
                                 [this](const Watch& watch) { return ReadinessOf(watch) != 0; });
  return ready ? EPOLLIN : 0u;
}

std::size_t EpollFile::Take(std::span<Event> events) {
  std::size_t count = 0;
  const std::size_t first = watches_.empty() ? 0 : Choices().Next() % watches_.size();
  for (std::size_t i = 0; i < watches_.size() && count < events.size(); ++i) {
    Watch& watch = watches_[(first + i) % watches_.size()];
    const std::uint32_t ready = ReadinessOf(watch);
    if (ready == 0) continue;
    watch.edge = false;
    events[count++] = {.events = ready, .data = watch.data};
  }
  return count;
}

void EpollFile::OnNotify(const File& file) {
  bool any = false;
  for (Watch& watch : watches_) {
    if (watch.file != &file) continue;
    watch.edge = true;
    any = true;
  }
  if (any) TellEpolls();
}

// ---- Sockets.

SocketFile::SocketFile() : File("socket") {}

SocketFile::~SocketFile() {
  Leave();
  if (peer_ == nullptr) return;
  SocketFile& peer = *peer_;
  peer.peer_ = nullptr;
  peer.ended_ = true;
  if (!messages_.empty()) peer.reset_ = true;
  peer.Notify();
}

void SocketFile::Connect(const std::shared_ptr<SocketFile>& a,
                         const std::shared_ptr<SocketFile>& b) {
  a->peer_ = b.get();
  b->peer_ = a.get();
  a->connected_ = b->connected_ = true;
}

std::uint32_t SocketFile::Readiness() {
  if (listening) return waiting.empty() ? 0u : EPOLLIN;
  if (!connected_) return EPOLLHUP;
  std::uint32_t ready = 0;
  if (!messages_.empty() || ended_) ready |= EPOLLIN;
  if (ended_) ready |= EPOLLHUP;
  if (peer_ == nullptr || peer_->messages_.size() < kMostMessages) ready |= EPOLLOUT;
  return ready;
}

int SocketFile::Send(Message message) {
  if (reset_) {
    reset_ = false;
    return ECONNRESET;
  }
  if (!connected_) return ENOTCONN;
  if (peer_ == nullptr || ended_) return EPIPE;
  if (!message.files.empty() && !peer_->takes_descriptors) return EPERM;
  if (peer_->messages_.size() >= kMostMessages) return EAGAIN;
  peer_->messages_.push_back(std::move(message));
  peer_->Notify();
  return 0;
}

int SocketFile::Receive(Message& message) {
  if (reset_) {
    reset_ = false;
    return ECONNRESET;
  }
  if (messages_.empty()) return ended_ || !connected_ ? 0 : EAGAIN;
  const bool was_full = messages_.size() >= kMostMessages;
  message = std::move(messages_.front());
  messages_.pop_front();
  if (peer_ != nullptr && was_full) peer_->Notify();
  return 0;
}

void SocketFile::Shutdown() {
  ended_ = true;
  Notify();
  if (peer_ == nullptr) return;
  peer_->ended_ = true;
  peer_->Notify();
}

MemoryFile::~MemoryFile() { ::close(fd_); }

// ---- Descriptors.

int Install(FilePointer file) {
  if (FaultNow(FaultKind::kDescriptor)) {
    errno = EMFILE;
    return -1;
  }
  const InTest not_counted;
  auto& table = TheKernel().descriptors;
  std::size_t index = 0;
  while (index < table.size() && table[index].file != nullptr) ++index;
  if (index == table.size()) table.emplace_back();
  table[index] = {.file = std::move(file), .process = Current().process};
  return kFirstDescriptor + static_cast<int>(index);
}

FilePointer FileOf(int fd) {
  const auto& table = TheKernel().descriptors;
  const auto index = static_cast<std::size_t>(fd - kFirstDescriptor);
  return fd >= kFirstDescriptor && index < table.size() ? table[index].file : nullptr;
}

bool CloseDescriptor(int fd) {
  auto& table = TheKernel().descriptors;
  const auto index = static_cast<std::size_t>(fd - kFirstDescriptor);
  if (fd < kFirstDescriptor || index >= table.size() || table[index].file == nullptr) return false;
  const FilePointer file = std::move(table[index].file);
  table[index].file = nullptr;
  return true;
}

void CloseAllOf(std::uint32_t process) {
  auto& table = TheKernel().descriptors;
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].file != nullptr && table[i].process == process) {
      CloseDescriptor(kFirstDescriptor + static_cast<int>(i));
    }
  }
}

std::vector<int> MemoryOf(std::uint32_t process) {
  std::vector<int> memory;
  for (const Descriptor& each : TheKernel().descriptors) {
    if (each.file == nullptr || each.process != process) continue;
    const auto* const file = dynamic_cast<const MemoryFile*>(each.file.get());
    if (file != nullptr) memory.push_back(file->fd());
  }
  return memory;
}

std::uint32_t CountDescriptors(std::uint32_t process) {
  std::uint32_t count = 0;
  for (const Descriptor& each : TheKernel().descriptors) {
    if (each.file != nullptr && each.process == process) ++count;
  }
  return count;
}

std::string DescribeDescriptors(std::uint32_t process) {
  std::string text;
  const auto& table = TheKernel().descriptors;
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].file == nullptr || table[i].process != process) continue;
    text += " " + std::to_string(i) + ":" + table[i].file->kind();
  }
  return text;
}

void KeepDescriptorsAndMappings() {
  for (Descriptor& each : TheKernel().descriptors) each.process = kWorldProcess;
  for (auto& [begin, range] : TheKernel().ranges) range.process = kWorldProcess;
}

// ---- Names.

int Bind(const std::string& name, const std::shared_ptr<SocketFile>& socket) {
  Kernel& kernel = TheKernel();
  if (kernel.names.contains(name)) return EADDRINUSE;
  kernel.names[name] = {.socket = socket, .number = kernel.next_number++};
  socket->name = name;
  return 0;
}

int ConnectTo(const std::string& name, const std::shared_ptr<SocketFile>& socket) {
  Kernel& kernel = TheKernel();
  const auto found = kernel.names.find(name);
  if (found == kernel.names.end()) return ENOENT;
  const auto listener = found->second.socket.lock();
  if (listener == nullptr || !listener->listening) return ECONNREFUSED;
  auto other = std::make_shared<SocketFile>();
  SocketFile::Connect(socket, other);
  other->peer_process = Current().process;
  listener->waiting.push_back(std::move(other));
  listener->Notify();
  return 0;
}

std::uint64_t FileNumber(const std::string& name) {
  const auto& names = TheKernel().names;
  const auto found = names.find(name);
  return found == names.end() ? 0 : found->second.number;
}

bool Unlink(const std::string& name) { return TheKernel().names.erase(name) != 0; }

// ---- Address space.

void OnMap(void* address, std::size_t bytes, std::uint32_t process) {
  OnUnmap(address, bytes);
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  TheKernel().ranges[begin] = {.end = begin + bytes, .process = process};
}

void OnUnmap(void* address, std::size_t bytes) {
  auto& ranges = TheKernel().ranges;
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  const std::uintptr_t end = begin + bytes;
  auto next = ranges.upper_bound(begin);
  if (next != ranges.begin() && std::prev(next)->second.end > begin) --next;
  while (next != ranges.end() && next->first < end) {
    const auto [first, range] = *next;
    next = ranges.erase(next);
    if (first < begin) ranges[first] = {.end = begin, .process = range.process};
    if (range.end > end) {
      ranges[end] = range;
      break;
    }
  }
}

std::uint64_t MappedBytes(std::uint32_t process) {
  std::uint64_t bytes = 0;
  for (const auto& [begin, range] : TheKernel().ranges) {
    if (range.process == process) bytes += range.end - begin;
  }
  return bytes;
}

void ForgetMappings(std::uint32_t process) {
  std::erase_if(TheKernel().ranges,
                [&](const auto& entry) { return entry.second.process == process; });
}

}  // namespace kmcl::sim
