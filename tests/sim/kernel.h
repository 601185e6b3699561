// The part of an operating system that the library sees: descriptors of events, of epolls, of
// sockets that carry messages and descriptors, of memory. Only memory is the real system's, because
// only that can map it twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace kmcl::sim {

class EpollFile;

// What a descriptor stands for. Several may stand for the same one.
class File : public std::enable_shared_from_this<File> {
 public:
  explicit File(const char* kind) : kind_(kind) {}
  virtual ~File() { Leave(); }
  // EPOLLIN, EPOLLOUT, EPOLLHUP as they are now.
  virtual std::uint32_t Readiness() { return 0; }
  const char* kind() const { return kind_; }  // as /proc/self/fd would show it
  // Something happened: for those who wait for edges.
  void Notify();

 protected:
  // From here on it is none that an epoll watches: it is about to go.
  void Leave();

 private:
  friend class EpollFile;
  void TellEpolls();
  const char* const kind_;
  std::vector<EpollFile*> epolls_;  // each forgets us when it goes, and is told when we do
};
using FilePointer = std::shared_ptr<File>;

class EventFile final : public File {
 public:
  explicit EventFile(std::uint64_t count) : File("anon_inode:[eventfd]"), count_(count) {}
  std::uint32_t Readiness() override;
  void Add(std::uint64_t count);
  std::uint64_t Take();  // 0: nothing there
  bool nonblocking = true;

 private:
  std::uint64_t count_;
};

class EpollFile final : public File {
 public:
  EpollFile() : File("anon_inode:[eventpoll]") {}
  ~EpollFile() override;
  struct Event {
    std::uint32_t events;
    std::uint64_t data;
  };
  int Add(int fd, const FilePointer& file, std::uint32_t events, std::uint64_t data);
  int Modify(int fd, std::uint32_t events, std::uint64_t data);
  int Remove(int fd, File& file);
  std::uint32_t Readiness() override;
  // Takes what is ready, edges included.
  std::size_t Take(std::span<Event> events);
  void OnNotify(const File& file);
  void Forget(const File& file);

 private:
  struct Watch {
    int fd;
    File* file;  // nullptr: it has gone
    std::uint32_t events;
    std::uint64_t data;
    bool edge;  // something has happened since it was last told
  };
  std::uint32_t ReadinessOf(const Watch& watch) const;
  std::vector<Watch> watches_;
};

class SocketFile final : public File {
 public:
  SocketFile();
  ~SocketFile() override;
  std::uint32_t Readiness() override;
  static void Connect(const std::shared_ptr<SocketFile>& a, const std::shared_ptr<SocketFile>& b);

  struct Message {
    std::vector<std::byte> bytes;
    std::vector<FilePointer> files;
  };
  // 0 or an errno.
  int Send(Message message);
  int Receive(Message& message);  // an empty one: the end
  void Shutdown();

  bool listening = false;
  bool nonblocking = false;
  bool takes_descriptors = true;
  std::deque<std::shared_ptr<SocketFile>> waiting;  // to be accepted
  std::uint32_t peer_process = 0;
  std::string name;

 private:
  SocketFile* peer_ = nullptr;  // as long as it is there
  std::deque<Message> messages_;
  bool connected_ = false;
  bool ended_ = false;  // the peer has gone, or has shut it down
  bool reset_ = false;  // with messages of ours unread
};

class MemoryFile final : public File {
 public:
  explicit MemoryFile(int fd) : File("memory"), fd_(fd) {}
  ~MemoryFile() override;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

class PlainFile final : public File {
 public:
  explicit PlainFile(std::string of_path) : File("a file"), path(std::move(of_path)) {}
  std::string path;
};

// The table of descriptors. -1 with EMFILE when the seed says so.
inline constexpr int kFirstDescriptor = 100'000;
int Install(FilePointer file);
FilePointer FileOf(int fd);
template <typename T>
std::shared_ptr<T> FileAs(int fd) {
  return std::dynamic_pointer_cast<T>(FileOf(fd));
}
bool CloseDescriptor(int fd);
void CloseAllOf(std::uint32_t process);
// The real descriptors of the memory that it shares.
std::vector<int> MemoryOf(std::uint32_t process);
std::uint32_t CountDescriptors(std::uint32_t process);
std::string DescribeDescriptors(std::uint32_t process);
// What is there now belongs to no process in particular.
void KeepDescriptorsAndMappings();

// Names in the file system: those of sockets only.
int Bind(const std::string& name, const std::shared_ptr<SocketFile>& socket);  // 0 or an errno
int ConnectTo(const std::string& name, const std::shared_ptr<SocketFile>& socket);
std::uint64_t FileNumber(const std::string& name);  // 0: there is none
bool Unlink(const std::string& name);

// Address space that is mapped.
void OnMap(void* address, std::size_t bytes, std::uint32_t process);
void OnUnmap(void* address, std::size_t bytes);
std::uint64_t MappedBytes(std::uint32_t process);
void ForgetMappings(std::uint32_t process);

}  // namespace kmcl::sim
